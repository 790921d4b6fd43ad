// Owns the style of objects: visible statuses, line width, opacity, fill; saved in local storage.

import { STATUSES } from "./colours.js";
import { element } from "./dom.js";

const STORAGE_KEY = "objects";
const RANGES = {
  width: ["Line width", 0, 6, 0.5, (value) => `${value} px`],
  opacity: ["Opacity", 0.1, 1, 0.05, (value) => `${Math.round(100 * value)} %`],
  fill: ["Fill", 0, 1, 0.05, (value) => `${Math.round(100 * value)} %`],
};

export class Style {
  constructor() {
    Object.assign(this, { width: 2, opacity: 1, fill: 0, hidden: [], visible: true });
    try { Object.assign(this, JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? {}); } catch { /* no storage in private windows */ }
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

  /** List the statuses that objects of the slide can have; the rows are also the legend. */
  open(slide) {
    const found = slide.compared ? ["found", "false", "missed", "true"] : ["found"];
    this.statuses = slide.predicted ? found : ["true"];
    this.box.replaceChildren(...this.statuses.map((status) => this.#row(status)));
    document.getElementById("overlay-box").hidden = !(slide.predicted || slide.layers.some((one) => one.kind === "coverage"));
  }

  /** Show the number of objects of each status. */
  count(counts) {
    for (const status of this.statuses) {
      // With a prediction, true objects are not listed: each was found or missed.
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
      this.#save();
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
      this.#save();
    });
    return element("label", { className: "row" }, element("span", {}, title), input, output);
  }

  #save() {
    const { width, opacity, fill, hidden } = this;
    try { localStorage.setItem(STORAGE_KEY, JSON.stringify({ width, opacity, fill, hidden })); } catch { /* as above */ }
    this.changed();
  }
}
