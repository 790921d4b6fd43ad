// Owns the object list: sorting, filtering, selecting, stepping.

import { STATUSES } from "./colours.js";
import { areaText, element } from "./dom.js";

const MAX_ROWS = 400; // other objects are only shown on the slide

const RANKS = {
  error_mass: ["Error mass", (a, b) => b.error_mass - a.error_mass],
  area: ["Area", (a, b) => b.area - a.area],
  sure: ["Most probable", (a, b) => b.probability - a.probability],
  unsure: ["Least probable", (a, b) => a.probability - b.probability],
};
const KINDS = {
  all: ["All", () => true],
  found: ["Found", (one) => one.kind === "found"],
  wrong: ["False", (one) => one.status === "false"],
  missed: ["Missed", (one) => one.status === "missed"],
  open: ["Not reviewed", (one, verdicts) => !(one.id in verdicts)],
};
const MARKS = { right: "✓", wrong: "✗", unsure: "?" };

export class ObjectList {
  constructor(choose) {
    this.choose = choose;
    this.box = document.getElementById("objects");
    this.rank = document.getElementById("rank");
    this.kind = document.getElementById("kind");
    for (const select of [this.rank, this.kind]) select.addEventListener("change", () => this.draw());
  }

  open(slide, objects) {
    this.slide = slide;
    this.objects = objects;
    this.verdicts = {};
    this.chosen = null;
    this.rank.parentElement.hidden = !objects.length;
    if (objects.length) this.#offer();
    this.draw();
  }

  /** Offer the orders and filters that the objects have values for. */
  #offer() {
    const known = (name) => this.objects.some((one) => one[name] !== null);
    const ranks = Object.keys(RANKS).filter((name) =>
      name === "area" || (name === "error_mass" ? known("error_mass") : known("probability")));
    fill(this.rank, ranks.map((name) => [name, RANKS[name][0]]));
    const kinds = Object.keys(KINDS).filter((name) =>
      !["wrong", "missed"].includes(name) || known("error_mass"));
    fill(this.kind, kinds.map((name) => [name, KINDS[name][0]]));
  }

  draw() {
    const [, order] = RANKS[this.rank.value] ?? RANKS.area;
    const [, wanted] = KINDS[this.kind.value] ?? KINDS.all;
    this.listed = this.objects.filter((one) => wanted(one, this.verdicts)).sort(order);
    document.getElementById("object-count").textContent =
      this.objects.length ? `${this.listed.length.toLocaleString("en")} of ${this.objects.length.toLocaleString("en")}` : "";
    const rows = this.listed.slice(0, MAX_ROWS).map((one) => this.#row(one));
    if (!rows.length) {
      const why = this.objects.length ? "No objects of this kind." : "The slide has no prediction and no truth with objects.";
      rows.push(element("li", { className: "empty" }, why));
    }
    this.box.replaceChildren(...rows);
  }

  mark(chosen) {
    this.chosen = chosen;
    for (const row of this.box.children) {
      const here = row.dataset.object === String(chosen);
      row.setAttribute("aria-selected", here);
      if (here) this.#reveal(row);
    }
  }

  /** Scroll the list to a row, without scrolling the panel and its buttons. */
  #reveal(row) {
    const [list, one] = [this.box, row].map((element) => element.getBoundingClientRect());
    this.box.scrollTop += Math.min(0, one.top - list.top) + Math.max(0, one.bottom - list.bottom);
  }

  /** Id of the object `by` steps further in the list. */
  step(by) {
    if (!this.listed?.length) return null;
    const place = this.listed.findIndex((one) => one.id === this.chosen);
    const next = place < 0 ? 0 : Math.min(this.listed.length - 1, Math.max(0, place + by));
    return this.listed[next].id;
  }

  #row(one) {
    const chip = element("i", { className: "chip" });
    chip.style.background = STATUSES[one.status].colour;
    const text = `${one.class}, ${areaText(one.area, this.slide.mpp)}`;
    const byError = this.rank.value === "error_mass";
    const figure = byError ? `off ${areaText(one.error_mass, this.slide.mpp)}` : one.probability?.toFixed(2) ?? "";
    const verdict = this.verdicts[one.id] ?? "";
    const row = element("li", { title: describe(one, this.slide.mpp) }, chip, element("span", {}, text),
      element("span", { className: "quiet" }, figure), element("span", { className: `verdict ${verdict}` }, MARKS[verdict] ?? ""));
    row.dataset.object = one.id;
    row.setAttribute("aria-selected", one.id === this.chosen);
    row.addEventListener("click", () => this.choose(one.id, true));
    return row;
  }
}

/** Describe an object in one line. */
export function describe(one, mpp) {
  const parts = [`${one.class}, ${STATUSES[one.status].title.toLowerCase()}`, areaText(one.area, mpp)];
  if (one.probability !== null) parts.push(`probability ${one.probability.toFixed(2)}`);
  if (one.overlap !== null) parts.push(`${Math.round(100 * one.overlap)} % true`);
  if (one.error_mass !== null) parts.push(`error mass ${areaText(one.error_mass, mpp)}`);
  return parts.join(" · ");
}

function fill(select, pairs) {
  const before = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
  if (pairs.some(([value]) => value === before)) select.value = before;
}
