"use strict";
/* Two pictures on top of each other with a divider to drag, and overlays of the tokens' fates. */
class Compare {
  constructor(node, label) {
    this.node = node;
    node.classList.add("compare");
    this.sides = ["left", "right"].map((name) => {
      const image = el("img", { alt: "" });
      const canvas = el("canvas", { "aria-hidden": "true" });
      const tag = el("span", { class: "tag" });
      const none = el("div", { class: "none hidden" });
      const side = el("div", { class: `side ${name}` }, image, canvas, none, tag);
      return { side, image, canvas, tag, none };
    });
    this.input = el("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": label });
    this.input.addEventListener("input", () => node.style.setProperty("--at", `${this.input.value}%`));
    node.replaceChildren(...this.sides.map((one) => one.side), this.input, el("div", { class: "bar" }));
  }

  size(width, height) { this.node.style.aspectRatio = `${width} / ${height}`; }

  show(place, { uri, title, alt, missing, pixels, overlay }) {
    const one = this.sides[place];
    one.image.classList.toggle("hidden", !uri);
    one.image.classList.toggle("pixels", !!pixels);
    if (uri && one.image.getAttribute("src") !== uri) one.image.src = uri;
    one.image.alt = alt || title;
    one.none.classList.toggle("hidden", !!uri);
    one.none.textContent = uri ? "" : missing || "";
    one.tag.textContent = title;
    one.canvas.classList.toggle("hidden", !overlay || !uri);
    if (overlay && uri) overlay(one.canvas);
  }
}

/* kind: `relevance` of the image tokens, or the fate of `image` tokens, of `map` tokens, or of the refinement (`detail`). */
function tokenOverlay(tokens, kind, width, height) {
  if (!tokens[kind]) return null;
  const values = tokens[kind].match(/../g).map((pair) => parseInt(pair, 16));
  return (canvas) => {
    const cell = 16;
    // The grid covers the picture and its padding.
    const side = Math.max(width / tokens.columns, height / tokens.rows);
    canvas.width = Math.round((width / side) * cell);
    canvas.height = Math.round((height / side) * cell);
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    values.forEach((value, n) => {
      const x = (n % tokens.columns) * cell, y = Math.floor(n / tokens.columns) * cell;
      if (kind === "relevance") {
        const heat = value / 255;
        pen.fillStyle = `hsla(${Math.round(225 - 195 * heat)}, 90%, ${Math.round(25 + 35 * heat)}%, .62)`;
        pen.fillRect(x, y, cell, cell);
      } else if (value === 0) {
        pen.fillStyle = "rgba(10, 13, 18, .62)";
        pen.fillRect(x, y, cell, cell);
      } else if (value < 255) {
        pen.fillStyle = "rgba(230, 40, 70, .72)";
        pen.fillRect(x, y, cell, cell);
        pen.strokeStyle = "rgba(255, 255, 255, .9)";
        pen.lineWidth = 1.5;
        pen.beginPath();
        pen.moveTo(x + 4, y + 4); pen.lineTo(x + cell - 4, y + cell - 4);
        pen.moveTo(x + cell - 4, y + 4); pen.lineTo(x + 4, y + cell - 4);
        pen.stroke();
      }
    });
  };
}

const OVERLAYS = [
  ["none", "no overlay"],
  ["relevance", "relevance of each token"],
  ["image", "image tokens: received, lost, masked"],
  ["map", "map tokens: received, lost, masked"],
  ["detail", "refinement: received, lost, not sent"],
];
const OVERLAY_LEGEND = {
  relevance: [["hsl(225, 90%, 25%)", "least relevant"], ["hsl(127, 90%, 42%)", "medium"], ["hsl(30, 90%, 60%)", "most relevant, sent first"]],
  image: [["transparent", "received"], ["rgb(230, 40, 70)", "lost"], ["rgb(40, 44, 52)", "masked: not sent, filled in by the receiver"]],
};
OVERLAY_LEGEND.map = OVERLAY_LEGEND.image;
OVERLAY_LEGEND.detail = [["transparent", "all received"], ["rgb(230, 40, 70)", "some lost"], ["rgb(40, 44, 52)", "nothing sent"]];

/* The ledger of one stream as a bar; entries: [name, title, group, bits]. */
const LEDGER_COLOURS = {
  index: "--content", payload: "--content", mask: "--content-2", session: "--overhead-4", header: "--overhead",
  coder: "--overhead-3", padding: "--overhead-2", crc: "--protection-3", fec: "--protection", pilots: "--protection-2", relay: "--faint",
};
function ledgerRow(title, colour, entries, total, widest, share) {
  const of = share ? total : widest;
  const stack = el("div", { class: "stack", role: "img", "aria-label": `${title}: ` + entries.map((e) => `${e.title} ${grouped(e.bits)} bits`).join(", ") },
    entries.map((e) => el("span", {
      style: `width:${(100 * e.bits) / (of || 1)}%;background:var(${LEDGER_COLOURS[e.id] || "--faint"})`,
      title: `${e.title}: ${grouped(e.bits)} bits, ${((100 * e.bits) / (total || 1)).toFixed(1)} %`,
    })));
  return el("div", { class: "row" },
    el("span", { style: colour ? `color:${colour};font-weight:600` : "" }, title), stack,
    el("span", { class: "total num" }, total ? `${grouped(total)} bits` : "nothing sent"));
}
function ledgerLegend(entries) {
  return el("div", { class: "legend" }, entries.map((e) => el("span", {},
    el("i", { style: `background:var(${LEDGER_COLOURS[e.id] || "--faint"})` }), e.title)));
}
