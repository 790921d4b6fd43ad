// Owns the layer list: visibility, opacity, colour maps and threshold.

import { aboveColour, classColour, colourTable, gradient, MAP_NAMES, STATUSES } from "./colours.js";
import { element } from "./dom.js";
import { coarsestSource, levelSource, valueSource } from "./source.js";

const MAPPED = { probability: "magma", uncertainty: "viridis", values: "cividis" };
const ENDS = { probability: ["0", "1"], uncertainty: ["sure", "unsure"], values: ["low", "high"] };
const THRESHOLDED = new Set(["probability", "decision", "errors"]);

/** Rows of the layer list; a probability layer has three rows, one per mode. */
function rowsOf(layers) {
  const rows = [];
  for (const layer of layers) {
    const row = (mode, title, opacity = 0.6) =>
      rows.push({ id: `${layer.id}.${mode}`, layer, mode, title, opacity, map: MAPPED[mode], on: false });
    if (layer.kind === "image") row("image", layer.title, 1);
    if (layer.kind === "values") row("values", layer.title);
    if (layer.kind === "classes") row("classes", layer.title, 0.5);
    if (layer.kind === "errors") row("errors", layer.title, 0.7);
    if (layer.kind === "probability") {
      const { name } = layer.classes[0];
      row("probability", layer.title);
      row("decision", `${name}: above the threshold`, 0.5);
      row("uncertainty", `${name}: uncertainty`);
    }
  }
  rows.filter((row) => row.mode === "image").forEach((row) => { row.on = true; });
  return rows;
}

export class Layers {
  constructor(viewer, changed) {
    this.viewer = viewer;
    this.changed = changed;
    this.rows = [];
    this.threshold = 0.5;
    this.box = document.getElementById("layers");
    this.slider = document.getElementById("threshold");
    this.slider.addEventListener("input", () => this.setThreshold(Number(this.slider.value)));
  }

  /** Show the layers of a slide; `state` is their state in the URL. */
  open(slide, state) {
    this.slide = slide;
    this.viewer.world.removeAll();
    const predicted = slide.layers.filter((one) => one.kind === "probability");
    predicted.forEach((layer) => { layer.single = predicted.length === 1; });
    this.rows = rowsOf(slide.layers);
    for (const row of this.rows) {
      if (!state.on) continue;
      row.on = row.id in state.on;
      if (row.on) row.opacity = state.on[row.id];
    }
    if (!this.rows.some((row) => row.on)) this.rows[0].on = true;
    this.#draw();
    this.setThreshold(state.threshold ?? 0.5, false);
    this.rows.filter((row) => row.on).forEach((row) => this.#add(row));
  }

  /** Toggle the row of an index; row 0 is the slide itself. */
  toggle(number) {
    const row = this.rows[number];
    if (row) this.#show(row, !row.on);
  }

  setThreshold(value, note = true) {
    this.threshold = Math.min(1, Math.max(0, value));
    this.slider.value = this.threshold;
    document.getElementById("threshold-value").value = this.threshold.toFixed(2);
    this.#repaint(this.rows.filter((row) => THRESHOLDED.has(row.mode)));
    if (note) this.changed();
  }

  /** Whether all visible tiles are loaded. */
  get loaded() {
    return this.rows.every((row) => !row.on || row.item?.getFullyLoaded());
  }

  /** State of the layers for the URL. */
  state() {
    const on = Object.fromEntries(this.rows.filter((row) => row.on).map((row) => [row.id, row.opacity]));
    return { threshold: this.threshold, on };
  }

  #table(row) {
    return colourTable(row.mode, { threshold: this.threshold, map: row.map, layer: row.layer });
  }

  #repaint(rows) {
    const painted = rows.filter((row) => row.source?.repaint);
    painted.forEach((row) => row.source.repaint(this.#table(row)));
    if (painted.length) this.viewer.forceRedraw();
    this.#key();
  }

  #add(row) {
    if (row.mode === "image") this.#addSeams(row);
    row.source = row.mode === "image"
      ? levelSource(this.slide, row.layer)
      : valueSource(this.slide, row.layer, row.mode, this.#table(row));
    this.viewer.addTiledImage({
      tileSource: row.source, opacity: row.opacity, x: 0, y: 0, width: 1,
      success: ({ item }) => {
        row.item = item;
        if (!row.on) this.#remove(row);
        else this.#order();
      },
    });
  }

  /** Draw the coarsest level below the slide, so that seams between tiles do not show the page. */
  #addSeams(row) {
    this.viewer.addTiledImage({
      tileSource: coarsestSource(this.slide, row.layer), opacity: Number(row.opacity === 1), index: 0, x: 0, y: 0, width: 1,
      success: ({ item }) => {
        row.seams = item;
        if (!row.on) this.#remove(row);
      },
    });
  }

  #order() {
    this.rows.flatMap((row) => [row.seams, row.item]).filter(Boolean).forEach((item, place) => {
      if (this.viewer.world.getIndexOfItem(item) !== place) this.viewer.world.setItemIndex(item, place);
    });
  }

  #remove(row) {
    for (const item of [row.item, row.seams]) if (item) this.viewer.world.removeItem(item);
    row.item = row.source = row.seams = null;
  }

  #show(row, on) {
    row.on = on;
    row.check.checked = on;
    row.range.disabled = !on;
    if (row.select) row.select.hidden = !on;
    if (on && !row.item) this.#add(row);
    if (!on) this.#remove(row);
    this.#key();
    this.changed();
  }

  #draw() {
    this.box.replaceChildren(...this.rows.map((row) => {
      row.check = element("input", { type: "checkbox", checked: row.on });
      row.check.addEventListener("change", () => this.#show(row, row.check.checked));
      row.range = element("input", {
        type: "range", min: 0.05, max: 1, step: 0.05, value: row.opacity, disabled: !row.on,
        title: "Opacity", ariaLabel: `Opacity of ${row.title}`,
      });
      row.range.addEventListener("input", () => {
        row.opacity = Number(row.range.value);
        row.item?.setOpacity(row.opacity);
        row.seams?.setOpacity(Number(row.opacity === 1));
        this.changed();
      });
      const name = element("label", {}, row.check, element("span", { title: row.title }, row.title));
      const line = element("div", { className: "layer" }, name, row.range);
      line.dataset.layer = row.id;
      if (row.map) line.append(this.#mapSelect(row));
      return line;
    }));
    const some = this.rows.some((row) => THRESHOLDED.has(row.mode));
    document.getElementById("threshold-box").hidden = !some;
  }

  #mapSelect(row) {
    const options = MAP_NAMES.map((name) => element("option", { value: name, selected: name === row.map }, name));
    row.select = element("select", { hidden: !row.on, ariaLabel: `Colour map of ${row.title}` }, ...options);
    row.select.addEventListener("change", () => {
      row.map = row.select.value;
      this.#repaint([row]);
    });
    return row.select;
  }

  #key() {
    const chip = (colour, text) => {
      const mark = element("i", { className: "chip" });
      mark.style.background = colour;
      return element("span", {}, mark, text);
    };
    const parts = new Map();
    for (const row of this.rows.filter((one) => one.on)) {
      if (row.mode === "errors") {
        const { found, false: wrong, missed } = STATUSES;
        parts.set("found", chip(found.colour, "found and true")).set("false", chip(wrong.colour, "found, not true"));
        parts.set("missed", chip(missed.colour, "true, missed"));
      } else if (row.map) {
        const ramp = element("i", { className: "ramp" });
        ramp.style.background = gradient(row.map);
        const [low, high] = ENDS[row.mode];
        parts.set(row.id, element("span", {}, low, ramp, high));
      } else if (row.mode === "decision") {
        parts.set(row.id, chip(aboveColour(row.layer), row.title));
      } else if (row.mode !== "image") {
        for (const entry of row.layer.classes) {
          const colour = classColour(entry, row.layer);
          parts.set(`${row.id}${entry.id}`, chip(colour, row.layer.classes.length > 1 ? entry.name : row.title));
        }
      }
    }
    document.getElementById("key").replaceChildren(...parts.values());
  }
}
