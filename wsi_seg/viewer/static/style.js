// Owns how objects look: which are shown, width and opacity of lines, fill; kept for the next visit.

import { STATUSES } from "./colours.js";
import { element } from "./dom.js";

const KEPT = "objects";
const RANGES = {
  width: ["Line width", 0, 6, 0.5, (value) => `${value} px`],
  opacity: ["Opacity", 0.1, 1, 0.05, (value) => `${Math.round(100 * value)} %`],
  fill: ["Fill", 0, 1, 0.05, (value) => `${Math.round(100 * value)} %`],
};

export class Style {
  constructor() {
    Object.assign(this, { width: 2, opacity: 1, fill: 0, hidden: [], visible: true });
    try { Object.assign(this, JSON.parse(localStorage.getItem(KEPT)) ?? {}); } catch { /* a private window keeps nothing */ }
    this.changed = () => {};
    this.box = document.getElementById("statuses");
    document.getElementById("ranges").replaceChildren(...Object.keys(RANGES).map((name) => this.#range(name)));
  }

  onChange(changed) {
    this.changed = changed;
  }

  shows(status) {
    return !this.hidden.includes(status);
  }

  /** Rows of what the slide can have, which are the legend too. */
  open(slide) {
    const found = slide.compared ? ["found", "false", "missed", "true"] : ["found"];
    this.statuses = slide.predicted ? found : ["true"];
    this.box.replaceChildren(...this.statuses.map((status) => this.#row(status)));
    document.getElementById("overlay-box").hidden = !(slide.predicted || slide.layers.some((one) => one.kind === "coverage"));
  }

  /** Say how many objects of each status there are. */
  count(counts) {
    for (const status of this.statuses) {
      // The truth is not listed where it is compared with: it was found, or is missed.
      const known = status !== "true" || this.statuses.length === 1;
      this.box.querySelector(`[data-status="${status}"] .quiet`).textContent = known ? (counts[status] ?? 0).toLocaleString("en") : "";
    }
  }

  toggle() {
    this.visible = !this.visible;
    this.box.parentElement.classList.toggle("off", !this.visible);
    this.changed();
  }

  #row(status) {
    const { title, colour, about } = STATUSES[status];
    const check = element("input", { type: "checkbox", checked: this.shows(status) });
    check.addEventListener("change", () => {
      this.hidden = check.checked ? this.hidden.filter((one) => one !== status) : [...this.hidden, status];
      this.#keep();
    });
    const mark = element("i", { className: `line ${status}` });
    mark.style.color = colour;
    const row = element("label", { className: "status", title: about }, check, mark, element("span", {}, title), element("span", { className: "quiet" }));
    row.dataset.status = status;
    return row;
  }

  #range(name) {
    const [title, min, max, step, shown] = RANGES[name];
    const input = element("input", { id: `objects-${name}`, type: "range", min, max, step, value: this[name] });
    const output = element("output", {}, shown(this[name]));
    input.addEventListener("input", () => {
      this[name] = Number(input.value);
      output.value = shown(this[name]);
      this.#keep();
    });
    return element("label", { className: "row" }, element("span", {}, title), input, output);
  }

  #keep() {
    const { width, opacity, fill, hidden } = this;
    try { localStorage.setItem(KEPT, JSON.stringify({ width, opacity, fill, hidden })); } catch { /* as above */ }
    this.changed();
  }
}
