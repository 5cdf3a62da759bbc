"use strict";
const D = JSON.parse(byId("data").textContent);
const PICTURES = JSON.parse(byId("uris").textContent);
const uri = (number) => (number === null || number === undefined ? null : PICTURES.uris[number]);
const SOME_OUTAGE = 0.01;
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "star", "hexagon"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash"];
const SHAPES = [
  "M8 2a6 6 0 1 0 .01 0z", "M2.5 2.5h11v11h-11z", "M8 2l6.5 12h-13z", "M8 1l6 7-6 7-6-7z", "M8 14L1.5 2h13z",
  "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z", "M8 1l2 5h5l-4 3.2L12.6 15 8 11.6 3.4 15 5 9.2 1 6h5z", "M4.5 2h7L15 8l-3.5 6h-7L1 8z",
];
const style = (series) => series.style % SYMBOLS.length;
const colour = (series) => css(`--s${style(series)}`);

const seriesOf = (codec, folder) => D.series.find((s) => s.codec === codec && s.folder === folder);

const metricOf = (id) => D.metrics.find((one) => one.id === id);
const first = (...ids) => ids.find((id) => metricOf(id)) || (D.metrics[0] && D.metrics[0].id);
const values = (pick) => [...new Set(D.lines.map(pick).filter((v) => v !== undefined))].sort((a, b) => a - b);
const CONDITIONS = D.conditions.map((one) => ({ ...one, values: values((line) => line.cond[one.id]) }));
/* What is chosen by name: the channel and swept options, where a curve has several. */
const CATEGORIES = D.categories.map((id) => ({ id, title: id.replace(/_/g, " "), values: [...new Set(D.lines.map((line) => line.cat[id]).filter((v) => v !== undefined))] }))
  .filter((one) => D.series.some((_, n) => new Set(D.lines.filter((line) => line.s === n).map((line) => line.cat[one.id])).size > 1));
const SIZES = values((line) => line.size);
const VARYING = CONDITIONS.filter((one) => one.values.length > 1);

const state = {
  rate: D.rates[Math.floor((D.rates.length - 1) / 2)],
  cond: Object.fromEntries(CONDITIONS.map((one) => [one.id, one.values[Math.floor(one.values.length / 2)]])),
  cat: Object.fromEntries(CATEGORIES.map((one) => [one.id, one.values[0]])),
  size: SIZES[0],
  shown: new Set(D.series.map((_, n) => n)),
  metric: first("miou", "psnr_db"),
  x: D.rates.length > 1 ? "bpp" : VARYING.length ? VARYING[0].id : "bpp",
  scale: "linear", bands: true, share: false,
  picture: 0, realisation: 0, overlay: "none",
  sides: [{ source: "original", layer: "image" }, { source: "0", layer: "image" }],
  heat: VARYING.length ? VARYING[0].id : null,
  worst: 0,
};

/* The line of a series nearest to a setting: nearest conditions, then nearest rate. */
const BY_SERIES = D.series.map((_, n) => D.lines.map((line, at) => ({ ...line, at })).filter((line) => line.s === n));
function nearest(list, distance) {
  let best = null, least = Infinity;
  for (const one of list) { const d = distance(one); if (d < least) { least = d; best = one; } }
  return best;
}
function sameChannel(n, except) {
  let lines = BY_SERIES[n];
  for (const { id } of CATEGORIES) {
    const own = lines.filter((line) => line.cat[id] === state.cat[id]);
    lines = own.length || !lines.length ? own : lines.filter((line) => line.cat[id] === lines[0].cat[id]);
  }
  for (const { id } of CONDITIONS) {
    if (id === except || !lines.length || lines[0].cond[id] === undefined) continue;
    const value = nearest([...new Set(lines.map((line) => line.cond[id]))], (v) => Math.abs(v - state.cond[id]));
    lines = lines.filter((line) => line.cond[id] === value);
  }
  const size = nearest([...new Set(lines.map((line) => line.size))], (v) => Math.abs(v - state.size));
  return lines.filter((line) => line.size === size);
}
function askedRate(line) { return D.rates.find((rate) => rate.label === line.rate); }
function sameRate(lines) {
  const own = lines.filter((line) => line.rate === state.rate.label);
  if (own.length || !lines.length) return own;
  const far = (line) => {
    const rate = askedRate(line);
    return rate.kind === state.rate.kind ? Math.abs(Math.log(rate.value / state.rate.value)) : 1e3 + Math.abs((line.bpp || 0) - 0.05);
  };
  const best = nearest(lines, far);
  return lines.filter((line) => line.rate === best.rate);
}
const lineAt = (n) => sameRate(sameChannel(n))[0] || null;

function conditionsSaid(cond) {
  return CONDITIONS.filter(({ id }) => cond[id] !== undefined).map((one) => `${one.title} ${+(cond[one.id] * one.factor).toPrecision(4)}${one.unit ? ` ${one.unit}` : ""}`).join(", ");
}

/* ---- the top ---- */
function hero() {
  const one = D.folders[0];
  byId("title").textContent = D.title;
  const channels = [...new Set(D.folders.map((f) => f.channel))].join("; ");
  byId("lead").textContent = `${D.series.map((s) => s.title).join(", ")} over ${channels}. ${one.pictures} ${one.pictures === 1 ? "picture" : "pictures"}, ${one.realisations} ${one.realisations === 1 ? "realisation" : "realisations"} of the channel each. Sizes count the bytes that were sent.`;
  const h = D.headline;
  if (!h) return;
  const ends = new Map();
  for (const n of h.numbers) {
    const key = conditionsSaid(n.conditions) || one.channel;
    ends.set(key, [...(ends.get(key) || []), n]);
  }
  const top = Math.max(...h.numbers.map((n) => n.value || 0), h.ceiling || 0) * 1.04 || 1;
  byId("headline").append(el("div", { class: "front" }, el("h2", {}, h.title),
    el("div", { class: "ends" }, [...ends].map(([where, numbers]) => el("div", { class: "card end" }, el("h3", {}, where),
      numbers.map((n) => {
        const series = seriesOf(n.codec, 0);
        const tint = `var(--s${series ? style(series) : 6})`;
        return el("div", { class: "n" },
          el("span", { style: `color:${tint};font-weight:600` }, series ? series.title : n.codec),
          el("span", {}, el("b", {}, written(h.axis, n.value)), n.outage ? el("span", { class: "mute small" }, ` · ${Math.round(100 * n.outage)} % outage`) : null),
          el("span", { class: "track" }, el("i", { style: `width:${Math.max(0, (100 * n.value) / top)}%;background:${tint}` }),
            h.ceiling ? el("u", { style: `left:${(100 * h.ceiling) / top}%`, title: `the originals: ${written(h.axis, h.ceiling)}` }) : null));
      }))))));
}

/* ---- the setting that every part follows ---- */
function slider(name, count, at, said, move) {
  const out = el("output", {}, said(at));
  const input = el("input", { type: "range", min: 0, max: count - 1, step: 1, value: at, "aria-label": name, "aria-valuetext": said(at) });
  input.addEventListener("input", () => {
    const n = +input.value;
    out.textContent = said(n);
    input.setAttribute("aria-valuetext", said(n));
    fillTrack(input);
    move(n);
  });
  fillTrack(input);
  return el("div", { class: "slider" }, el("span", { class: "name" }, name), out, input);
}
function glyph(series) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[style(series)]);
  path.setAttribute("fill", `var(--s${style(series)})`);
  svg.append(path);
  return svg;
}
function settings() {
  const node = byId("setting");
  const said = (one, v) => `${+(v * one.factor).toPrecision(4)}${one.unit ? ` ${one.unit}` : ""}`;
  if (D.rates.length > 1) {
    node.append(slider("Rate", D.rates.length, D.rates.indexOf(state.rate), (n) => D.rates[n].title, (n) => { state.rate = D.rates[n]; update(); }));
  }
  for (const one of VARYING) {
    node.append(slider(one.title, one.values.length, one.values.indexOf(state.cond[one.id]), (n) => said(one, one.values[n]), (n) => { state.cond[one.id] = one.values[n]; update(); }));
  }
  for (const one of CATEGORIES) {
    node.append(el("label", { class: "field" }, one.title, el("select", { onchange: (event) => { state.cat[one.id] = one.values[event.target.selectedIndex]; update(); } },
      one.values.map((v) => el("option", { selected: v === state.cat[one.id] }, String(v))))));
  }
  if (SIZES.length > 1) {
    node.append(slider("Packet size", SIZES.length, 0, (n) => `${SIZES[n]} bytes`, (n) => { state.size = SIZES[n]; update(); }));
  }
  node.append(el("div", { class: "chips" }, D.series.map((series, n) => {
    const chip = el("button", { class: "chip", type: "button", "aria-pressed": "true" }, glyph(series), series.title);
    chip.addEventListener("click", () => {
      if (state.shown.has(n) && state.shown.size > 1) state.shown.delete(n); else state.shown.add(n);
      chip.setAttribute("aria-pressed", state.shown.has(n));
      update();
    });
    return chip;
  })));
}

/* ---- pictures ---- */
const LAYERS = [["image", "picture"], ["seen", "judge's map"], ["map", "map received"]];
let compare = null;
function gallery() {
  if (!D.pictures.length) { byId("pictures").classList.add("hidden"); return; }
  compare = new Compare(byId("compare"), "Divider between the two pictures");
  const realisations = [...new Set(D.shots.map((s) => s.r))].sort((a, b) => a - b);
  const sources = [["original", "original"], ...D.series.map((s, n) => [String(n), s.title])];
  const pick = (label, options, value, change, attributes) => el("label", { class: "field" }, label,
    el("select", { ...attributes, onchange: (event) => { change(event.target.value); pictures(); } },
      options.map(([v, title]) => el("option", { value: v, selected: v === value }, title))));
  byId("gallery-controls").append(...[
    D.pictures.length > 1 ? pick("picture", D.pictures.map((p, n) => [String(n), D.folders.length > 1 ? `${p.name} (${D.folders[p.folder].name})` : p.name]), "0", (v) => { state.picture = +v; }, { id: "picture" }) : null,
    realisations.length > 1 ? pick("realisation", realisations.map((r) => [String(r), `draw ${r + 1}`]), "0", (v) => { state.realisation = +v; }, { id: "realisation" }) : null,
    D.shots.some((s) => s.tokens) ? pick("overlay", OVERLAYS.filter(([kind]) => kind !== "detail" || D.shots.some((s) => s.tokens && s.tokens.detail)), "none", (v) => { state.overlay = v; }, { id: "overlay" }) : null,
  ].filter(Boolean));
  byId("sides").append(...["left", "right"].map((name, place) => el("div", { class: "pair" },
    pick(name, sources, state.sides[place].source, (v) => { state.sides[place].source = v; }, { id: `${name}-source` }),
    pick("showing", LAYERS, "image", (v) => { state.sides[place].layer = v; }, { id: `${name}-layer` }))));
  byId("classes-legend").append(...D.classes.map((c) => el("span", {}, el("i", { style: `background:${c.colour}` }), c.name)));
}
function shotOf(n) {
  const line = lineAt(n), picture = D.pictures[state.picture];
  if (!line) return null;
  const all = D.shots.filter((s) => s.l === line.at && s.p === picture.name);
  return all.find((s) => s.r === state.realisation) || all[0] || null;
}
function factsOf(source, short) {
  if (source === "original") return [el("b", {}, "original"), el("div", { class: "fact" }, "before anything was sent")];
  const n = +source, shot = shotOf(n), line = lineAt(n);
  if (!shot) return [el("b", {}, D.series[n].title), el("div", { class: "fact" }, "no picture was kept at this setting")];
  if (shot.lowest !== null) return [el("b", {}, D.series[n].title), el("div", { class: "fact" }, `rate not reachable: the lowest is ${grouped(shot.lowest)} bytes`)];
  const measured = D.metrics.filter((m) => isNumber(shot.v[m.id]));
  const title = `${D.series[n].title}${line.rate === state.rate.label ? "" : ` at ${askedRate(line).title}`}`;
  if (short) {
    const m = measured.find((one) => one.id === state.metric) || measured[0];
    return [el("b", {}, title), el("div", { class: "fact" }, shot.outage ? "outage: nothing could be decoded" : `${shot.delivered} of ${shot.packets} packets${m ? ` · ${m.title.replace(" of the picture", "")} ${written(m, shot.v[m.id])}` : ""}`)];
  }
  const numbers = measured.map((m) => el("span", {}, `${m.title} `, el("b", {}, written(m, shot.v[m.id])), D.series[n].trained.includes(m.id) ? "*" : ""));
  return [
    el("b", {}, title),
    el("div", { class: "fact" }, `${shot.bpp.toFixed(4)} bpp · ${grouped(shot.bytes)} bytes · ${shot.delivered} of ${shot.packets} packets${shot.outage ? " · outage" : ""}`),
    el("div", { class: "fact numbers" }, numbers),
  ];
}
function layerOf(source, layer) {
  const picture = D.pictures[state.picture];
  const names = { image: "picture", seen: "judge's map", map: source === "original" ? "labels" : "map received" };
  const title = `${source === "original" ? "original" : D.series[+source].title}${layer === "image" ? "" : `, ${names[layer]}`}`;
  if (source === "original") return { uri: uri(picture[layer]), title, missing: "Not available for this picture.", pixels: layer !== "image" };
  const shot = shotOf(+source);
  if (!shot) return { uri: null, title, missing: "No picture was kept at this setting." };
  const found = uri(shot[layer]);
  const missing = layer === "map" ? "This codec carries no map." : "Not available for this picture.";
  const overlay = shot.tokens && state.overlay !== "none" ? tokenOverlay(shot.tokens, state.overlay, picture.width, picture.height) : null;
  return { uri: found, title, missing, pixels: layer !== "image", overlay };
}
function pictures() {
  if (!compare) return;
  const picture = D.pictures[state.picture];
  compare.size(picture.width, picture.height);
  state.sides.forEach((side, place) => compare.show(place, layerOf(side.source, side.layer)));
  byId("facts").replaceChildren(...state.sides.map((side) => el("div", {}, factsOf(side.source))));
  byId("overlay-legend").replaceChildren(...(OVERLAY_LEGEND[state.overlay] || []).map(([c, text]) => el("span", {}, el("i", { style: `background:${c}` }), text)));
  const layer = state.sides[1].layer;
  const cards = [["original", "original"], ...[...state.shown].sort().map((n) => [String(n), D.series[n].title])];
  byId("strip").replaceChildren(...cards.map(([source, title]) => {
    const found = layerOf(source, layer);
    return el("button", { class: "shot", type: "button", "aria-pressed": state.sides[1].source === source, onclick: () => { state.sides[1].source = source; byId("right-source").value = source; pictures(); } },
      found.uri ? el("img", { src: found.uri, alt: `${picture.name}: ${found.title}`, width: picture.width, height: picture.height, style: "height:auto" }) : el("div", { class: "none" }, found.missing),
      el("div", { class: "said" }, factsOf(source, true)));
  }));
}

/* ---- curves ---- */
const config = { displayModeBar: false, responsive: true };
function layout(extra) {
  const ink = css("--ink"), mute = css("--mute"), rule = css("--rule");
  const axis = { gridcolor: rule, linecolor: rule, zeroline: false, tickfont: { color: mute, size: 12 }, title: { font: { color: mute, size: 13 }, standoff: 10 }, automargin: true };
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: css("--sans"), color: ink, size: 13 }, margin: { l: 62, r: 18, t: 12, b: 48 }, showlegend: false, hoverlabel: { bgcolor: css("--card"), bordercolor: rule, font: { color: ink } }, xaxis: { ...axis }, yaxis: { ...axis }, axis, ...extra };
}
function acrossOf(line, x) {
  if (x === "bpp") return isNumber(line.bpp) ? line.bpp : askedRate(line).kind === "bpp" ? askedRate(line).value : null;
  if (x === "channel_uses") return line.uses;
  const one = CONDITIONS.find((c) => c.id === x);
  return line.cond[x] === undefined ? null : line.cond[x] * one.factor;
}
function axisLabel(axis) { return axis.unit ? `${axis.title} (${axis.unit})` : axis.title; }
function curveLines(n, x) {
  const overRate = x === "bpp" || x === "channel_uses";
  const lines = overRate ? sameChannel(n) : sameRate(sameChannel(n, x));
  return lines.filter((line) => line.v[state.metric] && isNumber(acrossOf(line, x))).sort((a, b) => acrossOf(a, x) - acrossOf(b, x));
}
function curves() {
  const metric = metricOf(state.metric);
  const overRate = state.x === "bpp" || state.x === "channel_uses";
  const xAxis = overRate ? D.axes[state.x] : CONDITIONS.find((c) => c.id === state.x);
  const traces = [], bands = [];
  let ceiling = null;
  for (const n of [...state.shown].sort()) {
    const series = D.series[n], lines = curveLines(n, state.x), ink = colour(series);
    const xs = lines.map((line) => acrossOf(line, state.x));
    const scaled = (k) => lines.map((line) => (isNumber(line.v[metric.id][k]) ? line.v[metric.id][k] * metric.factor : null));
    if (state.bands && lines.length > 1 && scaled(1).every(isNumber)) {
      bands.push({ x: [...xs, ...xs.slice().reverse()], y: [...scaled(2), ...scaled(1).reverse()], fill: "toself", fillcolor: ink, opacity: 0.13, line: { width: 0 }, hoverinfo: "skip", mode: "lines" });
    }
    const mark = (line) => (line.unreachable === 1 ? "x-thin-open" : SYMBOLS[style(series)] + (line.outage > SOME_OUTAGE ? "-open" : ""));
    traces.push({
      x: xs, y: scaled(0), name: series.title, mode: "lines+markers", line: { color: ink, width: 2.4, dash: DASHES[style(series)] },
      marker: { color: ink, size: 10, symbol: lines.map(mark), line: { color: ink, width: lines.map((line) => (line.unreachable === 1 || line.outage > SOME_OUTAGE ? 2.2 : 0)) } },
      text: lines.map((line) => `${line.unreachable === 1 ? "rate not reachable" : `${(line.bpp || 0).toFixed(4)} bpp`}${line.outage ? `, outage ${Math.round(100 * line.outage)} %` : ""}`),
      error_y: state.bands && lines.length === 1 && isNumber(scaled(1)[0]) ? { type: "data", symmetric: false, array: [scaled(2)[0] - scaled(0)[0]], arrayminus: [scaled(0)[0] - scaled(1)[0]], color: ink } : undefined,
      hovertemplate: `<b>${series.title.replace(/</g, "&lt;")}</b>: %{y:.${metric.decimals}f} ${metric.unit}<br>%{text}<extra></extra>`,
    });
    if (metric.id === "miou") for (const line of lines) if (isNumber(line.clean)) ceiling = Math.max(ceiling || 0, line.clean * metric.factor);
  }
  const shapes = [], annotations = [];
  if (ceiling !== null) {
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: ceiling, y1: ceiling, line: { color: css("--mute"), width: 1.2, dash: "dash" } });
    annotations.push({ xref: "paper", x: 1, y: ceiling, text: `the originals: ${ceiling.toFixed(1)} %`, showarrow: false, xanchor: "right", yanchor: "bottom", font: { size: 12, color: css("--mute") } });
  }
  const log = state.scale === "log" && overRate;
  if (!overRate || state.rate.kind === "bpp") {
    const at = overRate ? (state.x === "bpp" ? state.rate.value : null) : state.cond[state.x] * xAxis.factor;
    if (isNumber(at)) shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: at, x1: at, line: { color: css("--accent"), width: 1.2, dash: "dot" } });
  }
  const base = layout();
  const arrow = { higher: " ↑", lower: " ↓" }[metric.better] || "";
  Plotly.react("plot-curves", [...bands, ...traces], { ...base, height: innerWidth < 620 ? 330 : 430, hovermode: "x unified", shapes, annotations, xaxis: { ...base.axis, title: { ...base.axis.title, text: axisLabel(xAxis) }, type: log ? "log" : "linear" }, yaxis: { ...base.axis, title: { ...base.axis.title, text: axisLabel(metric) + arrow } } }, config);
  const where = overRate ? conditionsSaid(state.cond) : state.rate.title;
  const folder = D.folders[0];
  const starred = D.series.filter((s, n) => state.shown.has(n) && s.trained.includes(metric.id)).map((s) => s.title);
  byId("curve-note").textContent = `${where ? `At ${where}: ` : ""}n = ${folder.pictures} pictures in ${folder.blocks} blocks, ${folder.realisations} realisations each; ${folder.blocks >= D.blocks_needed ? "bands are 95 % intervals" : `no intervals: too few blocks`}. Hollow marks: more than 1 % outages, which are part of the mean. Cross: the rate is not reachable.${starred.length ? ` This metric was also a training loss of ${starred.join(", ")}.` : ""}`;
  const rows = [...state.shown].sort().flatMap((n) => curveLines(n, state.x).map((line) => [D.series[n].title, xAxis.decimals === undefined ? acrossOf(line, state.x) : +acrossOf(line, state.x).toPrecision(4), ...[0, 1, 2].map((k) => written({ ...metric, unit: "" }, line.v[metric.id][k])), `${(100 * line.outage).toFixed(0)} %`]));
  byId("curve-table").replaceChildren(table(["codec", axisLabel(xAxis), axisLabel(metric), "low", "high", "outage"], rows, 1));
  byId("scale").disabled = !overRate;
}
function table(head, rows, from) {
  const right = (n) => (n >= from ? "r" : null);
  return el("table", {}, el("thead", {}, el("tr", {}, head.map((text, n) => el("th", { class: right(n), scope: "col" }, text)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((text, n) => el("td", { class: right(n) }, text instanceof Node ? text : String(text)))))));
}
function curveControls() {
  pills(byId("metric"), "Metric", D.metrics.map((m) => [m.id, m.title]), state.metric, (id) => { state.metric = id; update(); });
  const xs = [["bpp", axisLabel(D.axes.bpp)], ...(D.lines.some((line) => line.uses > 0) ? [["channel_uses", axisLabel(D.axes.channel_uses)]] : []), ...VARYING.map((c) => [c.id, axisLabel(c)])];
  byId("x").append(...xs.map(([v, t]) => el("option", { value: v, selected: v === state.x }, t)));
  byId("x").onchange = (event) => { state.x = event.target.value; redraw("curves"); };
  byId("scale").onchange = (event) => { state.scale = event.target.value; redraw("curves"); };
  byId("bands").onchange = (event) => { state.bands = event.target.checked; redraw("curves"); };
  byId("heat-x").append(...VARYING.map((c) => el("option", { value: c.id }, axisLabel(c))));
  byId("heat-x").onchange = (event) => { state.heat = event.target.value; redraw("heat"); };
  byId("heat-x").parentElement.classList.toggle("hidden", VARYING.length < 2);
  byId("worst-codec").append(...D.series.map((s, n) => el("option", { value: n }, s.title)));
  byId("worst-codec").onchange = (event) => { state.worst = +event.target.value; redraw("worst"); };
  pills(byId("bits-unit"), "Unit of the bars", [["bits", "bits"], ["share", "share"]], "bits", (v) => { state.share = v === "share"; redraw("bits"); });
}

/* ---- metric over rate x condition ---- */
function heat() {
  if (!state.heat || D.rates.length < 2) return;
  const metric = metricOf(state.metric), x = CONDITIONS.find((c) => c.id === state.heat);
  const shown = [...state.shown].sort();
  const columns = innerWidth < 760 ? 1 : Math.min(3, shown.length), rows = Math.ceil(shown.length / columns);
  const base = layout(), traces = [], extra = {}, annotations = [];
  let low = Infinity, high = -Infinity;
  const grids = shown.map((n) => {
    const lines = sameChannel(n, state.heat);
    const rates = D.rates.filter((rate) => lines.some((line) => line.rate === rate.label));
    const z = rates.map((rate) => x.values.map((v) => {
      const line = lines.find((one) => one.rate === rate.label && one.cond[x.id] === v);
      const value = line && line.v[metric.id] ? line.v[metric.id][0] * metric.factor : null;
      if (isNumber(value)) { low = Math.min(low, value); high = Math.max(high, value); }
      return value;
    }));
    return { n, rates, z };
  });
  const dark = document.documentElement.dataset.theme === "dark";
  const ramp = dark ? [[0, "#1b2029"], [0.35, "#235066"], [0.7, "#2f8fae"], [1, "#a9e4f5"]] : [[0, "#f3f1ea"], [0.35, "#b9d8df"], [0.7, "#4d9db6"], [1, "#0a4c66"]];
  const scale = metric.better === "lower" ? ramp.map(([at], i) => [at, ramp[ramp.length - 1 - i][1]]) : ramp;
  grids.forEach(({ n, rates, z }, i) => {
    const k = i ? i + 1 : "", column = i % columns, row = Math.floor(i / columns), gap = 0.09 * (columns > 1);
    const width = (1 - gap * (columns - 1)) / columns, between = 0.2 * (rows > 1), tall = (1 - between * (rows - 1)) / rows;
    const left = column * (width + gap), top = 1 - row * (tall + between);
    traces.push({ type: "heatmap", x: x.values.map((v) => `${+(v * x.factor).toPrecision(4)}`), y: rates.map((r) => r.title), z, zmin: low, zmax: high, colorscale: scale, showscale: false, xgap: 3, ygap: 3, xaxis: `x${k}`, yaxis: `y${k}`, text: z.map((r) => r.map((v) => (isNumber(v) ? v.toFixed(metric.decimals) : "–"))), texttemplate: "%{text}", textfont: { size: 12 }, hovertemplate: `%{y}, %{x} ${x.unit}: %{z:.${metric.decimals}f} ${metric.unit}<extra></extra>` });
    extra[`xaxis${k}`] = { ...base.axis, type: "category", domain: [left, left + width], anchor: `y${k}`, title: { ...base.axis.title, text: axisLabel(x) }, showgrid: false };
    extra[`yaxis${k}`] = { ...base.axis, type: "category", domain: [top - tall, top], anchor: `x${k}`, showgrid: false };
    annotations.push({ xref: "paper", yref: "paper", x: left, y: top, xanchor: "left", yanchor: "bottom", text: `<b>${D.series[n].title.replace(/</g, "&lt;")}</b>`, showarrow: false, font: { color: colour(D.series[n]), size: 14 }, yshift: 6 });
  });
  const most = Math.max(...grids.map((g) => g.rates.length));
  Plotly.react("plot-heat", traces, { ...base, ...extra, annotations, margin: { l: 80, r: 10, t: 34, b: 50 }, height: rows * (46 * most + 110) + 20 }, config);
  byId("heat-note").textContent = `${axisLabel(metric)}, one scale for all`;
}

/* ---- IoU by class ---- */
function byClass() {
  const lines = [...state.shown].sort().map((n) => [n, lineAt(n)]).filter(([, line]) => line && line.iou);
  if (!lines.length) return;
  const there = D.classes.map((c, i) => ({ ...c, i })).filter((c) => lines.some(([, line]) => isNumber(line.iou[c.i]))).reverse();
  const base = layout();
  const traces = lines.map(([n, line]) => ({ x: there.map((c) => (isNumber(line.iou[c.i]) ? 100 * line.iou[c.i] : null)), y: there.map((c) => c.name), name: D.series[n].title, mode: "markers", marker: { color: colour(D.series[n]), symbol: SYMBOLS[style(D.series[n])], size: 12, opacity: 0.92, line: { color: css("--card"), width: 1 } }, hovertemplate: `<b>${D.series[n].title.replace(/</g, "&lt;")}</b>: %{x:.1f} %<extra></extra>` }));
  const shapes = there.map((c, k) => {
    const all = lines.map(([, line]) => line.iou[c.i]).filter(isNumber).map((v) => 100 * v);
    return { type: "line", x0: Math.min(...all), x1: Math.max(...all), y0: k, y1: k, line: { color: css("--rule"), width: 5 }, layer: "below" };
  });
  Plotly.react("plot-class", traces, { ...base, shapes, hovermode: "y unified", height: 34 * there.length + 80, margin: { l: 92, r: 18, t: 8, b: 46 }, xaxis: { ...base.axis, range: [-3, 103], title: { ...base.axis.title, text: "IoU (%)" } }, yaxis: { ...base.axis, type: "category", gridcolor: "rgba(0,0,0,0)" } }, config);
}

/* ---- the ledger ---- */
function bits() {
  const lines = [...state.shown].sort().map((n) => [n, lineAt(n)]).filter(([, line]) => line);
  const entriesOf = (line) => D.ledger.map((e) => ({ ...e, bits: line.bits[e.id] || 0 })).filter((e) => e.bits > 0);
  const total = (line) => entriesOf(line).reduce((sum, e) => sum + e.bits, 0);
  const widest = Math.max(1, ...lines.map(([, line]) => total(line)));
  byId("bits-rows").replaceChildren(...lines.map(([n, line]) => ledgerRow(D.series[n].title, `var(--s${style(D.series[n])})`, entriesOf(line), total(line), widest, state.share)));
  const used = D.ledger.filter((e) => lines.some(([, line]) => line.bits[e.id] > 0));
  byId("bits-legend").replaceChildren(ledgerLegend(used));
}

/* ---- worst pictures ---- */
function worst() {
  const chosen = metricOf(state.metric).id === "outage" ? metricOf(first("miou", "psnr_db")) : metricOf(state.metric);
  const line = lineAt(state.worst);
  const sign = chosen.better === "lower" ? -1 : 1;
  const found = line ? D.worst.filter((w) => w.l === line.at && isNumber(w.v[chosen.id])).sort((a, b) => sign * (a.v[chosen.id] - b.v[chosen.id])).slice(0, 12) : [];
  const folder = D.series[state.worst].folder;
  byId("worst-list").classList.toggle("bare", !found.some((w) => D.pictures.some((p) => p.name === w.p && p.folder === folder)));
  byId("worst-list").replaceChildren(...found.map((w, rank) => {
    const kept = D.pictures.findIndex((p) => p.name === w.p && p.folder === folder);
    const shot = kept >= 0 ? D.shots.find((s) => s.l === line.at && s.p === w.p) : null;
    const source = shot ? uri(shot.image) : kept >= 0 ? uri(D.pictures[kept].image) : null;
    const open = () => {
      state.picture = kept;
      if (byId("picture")) byId("picture").value = String(kept);
      state.sides[1].source = String(state.worst);
      byId("right-source").value = String(state.worst);
      pictures();
      byId("pictures").scrollIntoView();
    };
    return el("button", { class: "shot", type: "button", onclick: kept >= 0 ? open : null, disabled: kept < 0 },
      source ? el("img", { src: source, alt: `${w.p} as received`, width: D.pictures[kept].width, height: D.pictures[kept].height, style: "height:auto" }) : null,
      el("div", { class: "said" }, el("span", { class: "rank" }, `${rank + 1}`), el("b", {}, w.p),
        el("span", { class: "fact" }, `${chosen.title} ${written(chosen, w.v[chosen.id])}${w.v.outage ? `, outage ${Math.round(100 * w.v.outage)} %` : ""}`)));
  }), ...(found.length ? [] : [el("p", { class: "mute" }, "There are no values of single pictures at this setting.")]));
}

/* ---- cost, tables, manifest ---- */
function cost() {
  const rows = [];
  for (const [place, folder] of D.folders.entries()) {
    for (const [n, series] of D.series.entries()) {
      if (series.folder !== place) continue;
      const spent = folder.compute[series.codec] || {};
      const line = lineAt(n);
      const per = (seconds, count) => (isNumber(seconds) && count ? `${((1000 * seconds) / count).toFixed(0)} ms` : "–");
      rows.push([series.title, per(spent.encode_s, spent.encoded), per(spent.decode_s, spent.decoded), line && line.delay ? written(D.axes.delay_s, line.delay[0], 1) : "–", line && line.delay && isNumber(line.delay[1]) ? written(D.axes.delay_s, line.delay[1], 1) : "–", line ? grouped(line.uses) : "–"]);
    }
  }
  const machine = D.folders[0].made.machine || {};
  byId("cost-table").replaceChildren(table(["codec", "encoding, per picture", "decoding, per reception", "mean delay of the channel", "95 % quantile of the delay", "channel uses per picture"], rows, 1),
    el("p", { class: "note" }, `At the setting above. Measured during the sweep on ${machine.device || "cpu"}, ${machine.threads || "?"} threads; "–" if it was not measured or the channel has no delay.`));
}
function bjontegaard(name, pairs, codec) {
  if (!pairs.length) return [];
  const number = (v) => (isNumber(v) ? `${v > 0 ? "+" : ""}${v.toFixed(1)}` : "–");
  const interval = (b) => (isNumber(b.bd_rate_percent_low) ? ` [${number(b.bd_rate_percent_low)}, ${number(b.bd_rate_percent_high)}]` : "");
  const cond = (line) => conditionsSaid(line) || "–";
  const have = pairs.filter((b) => isNumber(b.bd_rate_percent)), none = pairs.filter((b) => !isNumber(b.bd_rate_percent));
  const body = have.map((b) => [codec(b.codec), codec(b.against), cond(b), b.metric, `${number(b.bd_rate_percent)} %${interval(b)}`, `${Math.round(100 * b.overlap)} %`]);
  const parts = [el("h3", {}, `${name}Bjøntegaard rates`), el("p", { class: "note" }, "Bits that a codec needs more (+) or less (−) than another at equal quality, averaged over the qualities that both reach; overlap is their share of the narrower range."),
    have.length ? table(["codec", "against", "channel", "metric", "rate", "overlap"], body, 4) : el("p", {}, "There are none: no two codecs reach the same qualities.")];
  if (none.length) {
    const why = table(["codec", "against", "channel", "metric", "reason"], none.map((b) => [codec(b.codec), codec(b.against), cond(b), b.metric, b.reason]), 9);
    parts.push(el("details", {}, el("summary", {}, `${none.length} pairs without a rate`), el("div", { class: "scroll" }, why)));
  }
  return parts;
}
function tables() {
  const parts = D.across ? bjontegaard("", D.across, (title) => (D.series.find((s) => s.codec === title) || { title }).title) : [];
  for (const [place, folder] of D.folders.entries()) {
    const name = D.folders.length > 1 ? `${folder.name}: ` : "";
    const codec = (title) => (seriesOf(title, place) || { title }).title;
    const cond = (line) => conditionsSaid(line) || "–";
    const number = (v, digits) => (isNumber(v) ? `${v > 0 ? "+" : ""}${v.toFixed(digits)}` : "–");
    const interval = (low, high, digits) => (isNumber(low) ? ` [${number(low, digits)}, ${number(high, digits)}]` : "");
    if (!D.across) parts.push(...bjontegaard(name, folder.bjontegaard, codec));
    if (folder.differences.length) {
      parts.push(el("h3", { style: "margin-top:1.4rem" }, `${name}Differences, paired`), table(["row", "against", "channel", "metric", "difference"], folder.differences.map((d) => [d.row, d.against, cond(d), d.metric, number(d.difference * d.factor, d.decimals) + interval(d.difference_low * d.factor, d.difference_high * d.factor, d.decimals)]), 4));
    }
  }
  byId("tables").classList.toggle("hidden", !parts.length);
  byId("tables-body").replaceChildren(...parts);
}
function again() {
  byId("again-body").append(...D.folders.map((folder) => {
    const file = `${folder.name}.yaml`;
    const command = `sqlink sweep ${file} -o results/${folder.name}`;
    const copy = el("button", { class: "plain", type: "button" }, "copy");
    copy.addEventListener("click", () => {
      const range = document.createRange();
      range.selectNodeContents(yaml);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
      copy.textContent = "copied";
    });
    const save = el("button", { class: "plain", type: "button" }, `save ${file}`);
    save.addEventListener("click", () => {
      const link = el("a", { href: URL.createObjectURL(new Blob([folder.yaml], { type: "text/yaml" })), download: file });
      link.click();
      URL.revokeObjectURL(link.href);
    });
    const yaml = el("pre", { tabindex: "0" }, folder.yaml);
    const missing = Object.entries(folder.unavailable);
    return el("div", { class: "again" },
      el("div", { class: "copy" }, D.folders.length > 1 ? el("b", {}, folder.name) : null, el("code", {}, command), copy, save),
      yaml,
      missing.length ? el("p", { class: "note" }, `Not measured: ${missing.map(([k, v]) => `${k} (${v.replace(/^unavailable: /, "")})`).join("; ")}.`) : null,
      el("details", {}, el("summary", {}, "Manifest: versions, weights, machine"), el("pre", { tabindex: "0" }, JSON.stringify(folder.made, null, 2))));
  }));
}

function navigation() {
  const parts = [["pictures", "Pictures"], ["curves", "Curves"], ["by-class", "Classes"], ["bits", "Bits"], ["worst", "Worst"], ["tables", "Tables"], ["again", "Reproduce"]];
  byId("nav").append(...parts.filter(([id]) => !byId(id).classList.contains("hidden")).map(([id, title]) => el("a", { href: `#${id}` }, title)));
}
/* Parts are drawn when they come into view, and again only after something moved. */
const PARTS = { curves, heat, "by-class": byClass, bits, worst, cost };
const stale = new Set(), inView = new Set();
let asked = false;
function draw() {
  asked = false;
  for (const id of inView) if (stale.delete(id)) PARTS[id]();
}
function redraw(...ids) {
  for (const id of ids) stale.add(id);
  if (!asked) { asked = true; requestAnimationFrame(draw); }
}
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target.id); else inView.delete(target.id);
  }
  redraw();
}, { rootMargin: "400px 0px" });
function update() {
  pictures();
  byId("by-class").classList.toggle("hidden", ![...state.shown].some((n) => (lineAt(n) || {}).iou));
  redraw(...Object.keys(PARTS));
}
byId("quality").textContent = PICTURES.quality;
if (PICTURES.left_out) byId("left-out").textContent = ` ${PICTURES.left_out} pictures were left out to keep the file small.`;
hero(); settings(); gallery(); curveControls(); tables(); again();
themed.push(() => redraw("curves", "heat", "by-class"));
startTheme(byId("theme"));
byId("heat").classList.toggle("hidden", !state.heat || D.rates.length < 2);
update();
navigation();
for (const id of Object.keys(PARTS)) watcher.observe(byId(id));
/* A printout shows every part. */
addEventListener("beforeprint", () => { for (const id of stale) PARTS[id](); stale.clear(); });
let wide = innerWidth < 760;
addEventListener("resize", () => { const now = innerWidth < 760; if (now !== wide) { wide = now; redraw("heat"); } });
