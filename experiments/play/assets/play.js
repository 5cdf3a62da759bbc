"use strict";
const TOKEN = new URLSearchParams(location.search).get("token") || "";
const state = { bpp: 0.04, snr_db: 12, loss: 0, protection: 3, fading: "rayleigh", draw: 0, realism: 1 };
const view = { sources: ["original", "sqgan"], layer: "image" };
let about = null, scenes = [null, null], compare = null;
const seen = new Map();

async function ask(path, body) {
  const own = { "X-SQLink-Token": TOKEN };
  const answer = await fetch(path, { method: body === undefined ? "GET" : "POST", headers: own, body, cache: "no-store" });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}
function say(text, wrong) {
  byId("busy").textContent = text;
  byId("busy").classList.toggle("error", !!wrong);
}
function settingOf(codec) {
  const setting = { codec, bpp: state.bpp, snr_db: state.snr_db, loss: state.loss, protection: state.protection, fading: state.fading, draw: state.draw };
  if (about.realism.includes(codec)) setting.realism = state.realism;
  return JSON.stringify(setting);
}

/* One request at a time; of changes made meanwhile, only the last is requested next. The judge is
   asked once the picture is shown. Answers for a picture that was replaced are dropped. */
let running = false, wanted = false, pictures = 0;
async function refresh() {
  wanted = true;
  if (running) return;
  running = true;
  while (wanted) {
    wanted = false;
    try { await move(); } catch (error) { say(error.message, true); }
  }
  running = false;
}
async function move() {
  const picture = pictures, start = performance.now();
  const keys = view.sources.map((source) => (source === "original" ? null : settingOf(source)));
  const known = keys.every((key) => key === null || seen.has(key));
  if (!known) say("sending…");
  for (const key of keys) {
    if (key === null || seen.has(key)) continue;
    const scene = await ask("/api/send", key);
    if (picture !== pictures) return;
    seen.set(key, scene);
    if (seen.size > 400) seen.delete(seen.keys().next().value);
  }
  scenes = keys.map((key) => (key === null ? null : seen.get(key)));
  show();
  const took = known ? "cached" : `${Math.round(performance.now() - start)} ms`;
  for (const [place, key] of keys.entries()) {
    if (key === null || scenes[place].seen !== undefined) continue;
    if (wanted) return;
    say(`${took}, judging…`);
    const judged = await ask("/api/judge", key);
    if (picture !== pictures) return;
    Object.assign(scenes[place], judged);
    show();
  }
  say(took);
}

const title = (source) => (source === "original" ? "original" : about.codecs.find((c) => c.id === source).title);
const tint = { sqgan: 0, jpeg2000: 1, bpg: 2 };
function layerOf(place) {
  const source = view.sources[place], scene = scenes[place], layer = view.layer;
  const overlaid = layer === "image" || layer === "seen" || layer === "map" ? null : layer;
  const base = overlaid ? "image" : layer;
  const name = title(source);
  if (source === "original") {
    const found = { image: about.original, seen: about.seen, map: about.labels }[base];
    return { uri: found, title: base === "seen" ? `${name}, judge's map` : base === "map" ? (about.labelled ? `${name}, labels` : `${name}, judge's map`) : name, pixels: base !== "image" };
  }
  if (!scene) return { uri: null, title: name, missing: "" };
  if (scene.unreachable !== null) return { uri: null, title: name, missing: `${name} cannot reach this rate: its lowest is ${scene.unreachable.toFixed(3)} bpp.` };
  const overlay = overlaid && scene.tokens ? tokenOverlay(scene.tokens, overlaid === "image-tokens" ? "image" : overlaid, about.width, about.height) : null;
  return {
    uri: scene[base], title: name + { image: "", seen: ", judge's map", map: ", map received" }[base], pixels: base !== "image", overlay,
    missing: base === "seen" && scene.seen === undefined ? "The judge is working…" : scene.outage ? "Outage: nothing could be decoded." : "This codec carries no map.",
  };
}
function show() {
  [0, 1].forEach((place) => compare.show(place, layerOf(place)));
  const kind = view.layer === "image" || view.layer === "map" ? null : OVERLAY_LEGEND[view.layer];
  byId("overlay-legend").replaceChildren(...(kind || []).map(([c, text]) => el("span", {}, el("i", { style: `background:${c}` }), text)));
  const percent = (v) => `${(100 * v).toFixed(1)} %`;
  byId("numbers").replaceChildren(...view.sources.map((source, place) => {
    const scene = scenes[place];
    const ink = source === "original" ? "" : `color:var(--s${tint[source]})`;
    const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));
    if (source === "original" || !scene) {
      return el("dl", { class: "who" }, el("h3", {}, title(source)), source === "original" ? [fact("pixels", `${about.width} × ${about.height}`), fact(about.labelled ? "mIoU of the judge" : "uncompressed", about.labelled ? percent(about.ceiling) : `${grouped(about.width * about.height * 3)} B`)] : []);
    }
    if (scene.unreachable !== null) return el("dl", { class: "who" }, el("h3", { style: ink }, title(source)), el("p", {}, `Its lowest rate is ${scene.unreachable.toFixed(3)} bpp: nothing was sent.`));
    return el("dl", { class: "who" }, el("h3", { style: ink }, title(source) + (scene.outage ? ": outage" : "")),
      fact("sent", `${grouped(scene.bytes)} B`), fact("rate", `${scene.bpp.toFixed(3)} bpp`), fact(about.labelled ? "mIoU" : "mIoU to the original", scene.miou === undefined ? "…" : percent(scene.miou)), fact("PSNR", scene.psnr_db === null ? "–" : `${scene.psnr_db.toFixed(1)} dB`), fact("channel uses", grouped(scene.uses)));
  }));
  const sent = view.sources.map((source, place) => [source, scenes[place]]).filter(([source, scene]) => source !== "original" && scene && scene.unreachable === null);
  byId("packets").replaceChildren(...sent.flatMap(([source, scene]) => [
    sent.length > 1 ? el("span", { class: "who" }, `${title(source)}: ${scene.delivered} of ${scene.packets} received`) : null,
    ...Array.from({ length: scene.packets }, (_, n) => el("i", { class: scene.lost.includes(n) ? "lost" : "", title: `packet ${n + 1}: ${scene.lost.includes(n) ? "lost" : "received"}` })),
  ]).filter(Boolean));
  byId("packets-said").textContent = sent.length === 1 ? `${sent[0][1].delivered} of ${sent[0][1].packets} received` : "";
  const entries = (scene) => about.ledger.map((e) => ({ ...e, bits: scene.bits[e.id] || 0 })).filter((e) => e.bits > 0);
  const total = (scene) => entries(scene).reduce((sum, e) => sum + e.bits, 0);
  const widest = Math.max(1, ...sent.map(([, scene]) => total(scene)));
  byId("bits").replaceChildren(...sent.map(([source, scene]) => ledgerRow(title(source), `var(--s${tint[source]})`, entries(scene), total(scene), widest, false)));
  const used = about.ledger.filter((e) => sent.some(([, scene]) => scene.bits[e.id] > 0));
  byId("bits-legend").replaceChildren(ledgerLegend(used));
}

function slider({ name, values, at, said, move, ends }) {
  const out = el("output", {}, said(values[at]));
  const input = el("input", { type: "range", min: 0, max: values.length - 1, step: 1, value: at, "aria-label": name, "aria-valuetext": said(values[at]) });
  input.addEventListener("input", () => {
    const value = values[+input.value];
    out.textContent = said(value);
    input.setAttribute("aria-valuetext", said(value));
    fillTrack(input);
    move(value);
    refresh();
  });
  fillTrack(input);
  return el("div", { class: "slider" }, el("span", { class: "name" }, name), out, input, ends ? el("div", { class: "ends", "aria-hidden": "true" }, el("span", {}, ends[0]), el("span", {}, ends[1])) : null);
}
const span = (from, to, step) => Array.from({ length: Math.round((to - from) / step) + 1 }, (_, n) => +(from + n * step).toFixed(4));

function controls() {
  const sources = [["original", "original"], ...about.codecs.map((c) => [c.id, c.title])];
  ["left", "right"].forEach((name, place) => pills(byId(name), `${name} picture`, sources, view.sources[place], (source) => { view.sources[place] = source; refresh(); }));
  pills(byId("layer"), "What is shown", [["image", "picture"], ["seen", "judge's map"], ["map", "map received"], ["image-tokens", "tokens"], ["relevance", "relevance"], ...(about.realism.length ? [["detail", "refinement"]] : [])], "image", (layer) => { view.layer = layer; show(); });
  const snrs = span(-5, 30, 0.5), losses = span(0, 0.6, 0.02), real = span(0, 1, 0.1);
  byId("sliders").append(...[
    slider({ name: "Rate", values: about.rates, at: about.rates.indexOf(state.bpp), said: (v) => `${v} bpp`, move: (v) => { state.bpp = v; }, ends: ["fewer bits", "more bits"] }),
    slider({ name: "Mean Es/N0", values: snrs, at: snrs.indexOf(state.snr_db), said: (v) => `${v} dB`, move: (v) => { state.snr_db = v; }, ends: ["noisy", "clean"] }),
    slider({ name: "Additional packet loss", values: losses, at: 0, said: (v) => `${Math.round(100 * v)} %`, move: (v) => { state.loss = v; } }),
    slider({ name: "Protection", values: about.protection.map((_, n) => n), at: state.protection, said: (n) => about.protection[n], move: (n) => { state.protection = n; }, ends: ["weak, few channel uses", "strong, many channel uses"] }),
    about.realism.length ? slider({ name: "Realism", values: real, at: real.length - 1, said: (v) => v.toFixed(1), move: (v) => { state.realism = v; }, ends: ["most probable", "most natural"] }) : null,
  ].filter(Boolean));
  pills(byId("fading"), "Channel", [["rayleigh", "Rayleigh fading"], ["awgn", "AWGN"]], state.fading, (value) => { state.fading = value; refresh(); });
  byId("again").addEventListener("click", () => { state.draw += 1; refresh(); });
  byId("street").addEventListener("click", () => change("/api/street", JSON.stringify({ seed: Math.floor(Math.random() * 1e6) })));
  byId("file").addEventListener("change", (event) => { const [file] = event.target.files; if (file) change("/api/picture", file); });
  byId("classes").append(...about.classes.map((c) => el("span", {}, el("i", { style: `background:${c.colour}` }), c.name)));
}
/* One change of the picture at a time; of those asked for meanwhile, only the last is made, so that
   what was asked for last is shown last. */
let changes = 0, changing = Promise.resolve();
function change(path, body) {
  const own = ++changes;
  changing = changing.then(() => (own === changes ? changed(path, body) : null));
}
async function changed(path, body) {
  say("preparing the picture…");
  try {
    about = await ask(path, body);
    pictures += 1;
    seen.clear();
    scenes = [null, null];
    begin();
    refresh();
  } catch (error) { say(error.message, true); }
}
function begin() {
  compare.size(about.width, about.height);
  byId("name").textContent = `${about.name}, ${about.width} × ${about.height}${about.labelled ? "" : "; it has no labels: mIoU is measured against the judge's map of the original"}`;
}
OVERLAY_LEGEND["image-tokens"] = OVERLAY_LEGEND.image;
startTheme(byId("theme"));
compare = new Compare(byId("compare"), "Divider between the two pictures");
ask("/api/about").then((found) => { about = found; begin(); controls(); return refresh(); }).catch((error) => say(error.message, true));
