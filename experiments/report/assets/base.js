"use strict";
/* Shared by the report and the live page: elements, numbers, light and dark. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "style") node.style.cssText = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const byId = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function written(axis, value, digits) {
  if (!isNumber(value)) return "–";
  const text = (value * axis.factor).toFixed(digits === undefined ? axis.decimals : digits);
  return axis.unit ? `${text} ${axis.unit}` : text;
}
function grouped(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
}
function fillTrack(input) {
  const span = input.max - input.min || 1;
  input.style.setProperty("--fill", `${(100 * (input.value - input.min)) / span}%`);
}

/* A row of buttons, one of them selected; arrow keys move the selection. */
function pills(node, label, options, chosen, choose) {
  node.className = "pills";
  node.setAttribute("role", "radiogroup");
  node.setAttribute("aria-label", label);
  const show = (value) => {
    for (const button of node.children) {
      const on = button.dataset.value === value;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
    }
  };
  node.replaceChildren(...options.map(([value, title]) => el("button", {
    type: "button", role: "radio", "data-value": value,
    onclick: () => { show(value); choose(value); },
  }, title)));
  node.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...node.children];
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    next.focus();
    next.click();
  };
  show(chosen);
}

const themed = [];
function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  for (const redraw of themed) redraw();
}
function startTheme(button) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  const now = () => own || (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => applyTheme(now()));
  button.addEventListener("click", () => {
    own = now() === "dark" ? "light" : "dark";
    applyTheme(own);
  });
  applyTheme(now());
}
