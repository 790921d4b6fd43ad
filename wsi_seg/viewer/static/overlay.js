// Owns drawing objects over the slide: as outlines, or as densities where outlines are too small.

import { outlines } from "./api.js";
import { coverageTable, STATUSES } from "./colours.js";
import { element } from "./dom.js";
import { coverageSource } from "./source.js";

// Objects that are smaller than this on the screen are shown as densities.
const MIN_OUTLINE_PX = 9;
// The server lists this number of largest objects; others are outlined, but cannot be selected.
const MAX_LISTED = 20_000;
// While zooming, up to this number of outlines is redrawn in each frame; more are scaled as an image.
const MAX_REDRAWN = 1500;
// Objects of at least this size have lines of full width; those of smaller ones are thinner.
const FULL_LINE_PX = 40;
// Margin around the viewport in which outlines are fetched and drawn, as a fraction of its size.
const MARGIN = 0.25;
const DASHES = { missed: [7, 4], false: [2, 3], wrong: [1, 5] };
const ALL_OF = { objects: ["found", "false", "missed"], truth: ["true"] };

export class Overlay {
  constructor(viewer, view, style) {
    this.viewer = viewer;
    this.view = view;
    this.style = style;
    this.canvas = element("canvas", { id: "overlay" });
    this.context = this.canvas.getContext("2d");
    viewer.canvas.append(this.canvas);
    this.probe = new OffscreenCanvas(1, 1).getContext("2d");
    this.measures = [];
    this.turn = 0;
    this.#clear();
    style.onChange(() => {
      this.coverage?.source.repaint(this.#coverageTable());
      viewer.forceRedraw();
      this.restyle();
    });
  }

  #clear() {
    this.objects = [];
    this.shown = { objects: [], truth: [] };
    this.groups = [];
    this.drawings = [];
    this.verdicts = {};
    this.chosen = null;
    this.stroke = null;
    this.leftOut = this.capped = false;
    this.side = 0;
    this.sheet = null;
  }

  /** Open a slide and show its density, before its objects are loaded. */
  open(slide) {
    this.#clear();
    this.slide = slide;
    this.coverage = null;
    const layer = slide.layers.find((one) => one.kind === "coverage");
    if (!layer) return;
    const source = coverageSource(slide, layer, this.#coverageTable());
    this.viewer.addTiledImage({
      tileSource: source, x: 0, y: 0, width: 1, opacity: 0,
      success: ({ item }) => {
        if (this.slide !== slide) return;
        this.coverage = { item, source };
        this.draw();
      },
    });
  }

  /** Show the outlines of a slide's objects, which are indexed by id. */
  show(objects) {
    this.objects = objects;
    this.capped = objects.length >= MAX_LISTED;
    const sides = objects.map(({ box }) => Math.sqrt((box[2] - box[0]) * (box[3] - box[1])));
    this.side = sides.sort((a, b) => a - b)[Math.floor(sides.length / 2)] ?? 0;
    return this.refresh();
  }

  /** Whether the viewport shows densities instead of outlines. */
  get dense() {
    return !this.objects.length || this.leftOut || this.side * this.view.zoom() < MIN_OUTLINE_PX;
  }

  /** Fetch the outlines in and around the viewport, at screen resolution. */
  async refresh() {
    this.leftOut = false;
    this.turn += 1;
    const turn = this.turn;
    if (this.dense) return this.restyle();
    const seen = this.view.region();
    const [w, h] = [seen.x_end - seen.x, seen.y_end - seen.y];
    const region = {
      x: seen.x - w * MARGIN, y: seen.y - h * MARGIN, x_end: seen.x_end + w * MARGIN, y_end: seen.y_end + h * MARGIN,
      tolerance: 0.4 / this.view.zoom(),
    };
    const kinds = this.slide.compared ? ["objects", "truth"] : ["objects"];
    return Promise.all(kinds.map(async (of) => {
      const found = await outlines(this.slide.name, { of, ...region }).catch(() => null);
      if (found === null || turn !== this.turn) return;
      this.leftOut ||= found.left_out;
      this.shown[of] = found.outlines.map(({ id, status, rings }) => ({ id, status, path: pathOf(rings), rings }));
      this.restyle();
    }));
  }

  /** Merge outlines of the same style into one path each; needed when styles change, not the viewport. */
  restyle() {
    const groups = new Map();
    for (const { id, status, path } of [...this.shown.truth, ...this.shown.objects]) {
      if (!this.style.shows(status) || (id !== null && id === this.chosen)) continue;
      const verdict = this.verdicts[id] ?? "";
      const key = `${status} ${verdict}`;
      if (!groups.has(key)) groups.set(key, { status, verdict, path: new Path2D() });
      groups.get(key).path.addPath(path);
    }
    this.groups = [...groups.values()];
    this.sheet = null;
    this.draw();
  }

  /** Draw with the transform of the viewer's last frame. */
  draw() {
    if (!this.slide) return;
    const { canvas, context } = this;
    const dense = this.dense && this.style.visible;
    this.#shade(dense ? this.style.opacity : 0);
    document.getElementById("overlay-note").hidden = !(dense && this.coverage);
    document.getElementById("capped-note").hidden = !this.capped;
    this.#clean();
    const outlined = !dense && this.style.visible && this.groups.length > 0;
    canvas.dataset.outlines = outlined ? this.shown.objects.length + this.shown.truth.length : 0;
    canvas.dataset.drawings = this.drawings.length;
    canvas.dataset.measures = this.measures.map(({ text }) => text).join("; ");
    if (!outlined && this.chosen === null && !this.drawings.length && !this.stroke && !this.measures.length) return;
    this.empty = false;
    const matrix = this.view.matrix();
    context.setTransform(...matrix);
    if (outlined) this.#outline(matrix);
    const chosen = this.chosen !== null && this.shown.objects.find(({ id }) => id === this.chosen);
    if (chosen) this.#line(chosen.path, { ...chosen, verdict: this.verdicts[chosen.id], wide: 2 });
    this.drawings.forEach((drawing, number) => {
      this.#line(pathOf(drawing.rings), { colour: drawing.colour, wide: this.chosen === `d${number}` ? 2 : 1.5, fill: 0.15 });
    });
    if (this.stroke?.length > 1) this.#line(pathOf([this.stroke], false), { colour: this.strokeColour, wide: 1.5 });
    this.measures.forEach((measure) => measure.draw(context, this.view, (path, look) => this.#line(path, look)));
  }

  #shade(opacity) {
    if (!this.coverage || this.coverage.item.getOpacity() === opacity) return;
    this.coverage.item.setOpacity(opacity);
    // OpenSeadragon does not always redraw when a layer becomes transparent.
    requestAnimationFrame(() => [this.viewer, this.viewer.navigator].forEach((one) => one.forceRedraw()));
  }

  /** Clear the canvas, or resize it to that of the viewer. */
  #clean() {
    const { canvas, context } = this;
    const { width, height } = this.viewer.drawer.canvas;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    else if (!this.empty) {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, width, height);
    }
    this.empty = true;
  }

  /** Draw all outlines from a cached image; while the zoom changes, redraw the lines if they are few. */
  #outline(matrix) {
    const linear = matrix.slice(0, 4).map((value) => value.toFixed(9)).join();
    const still = linear === this.linear;
    this.linear = linear;
    const many = this.shown.objects.length + this.shown.truth.length > MAX_REDRAWN;
    if (!still && !(many && this.sheet)) {
      this.sheet = null;
      this.groups.forEach((group) => this.#line(group.path, group));
      return;
    }
    if (still && this.sheet?.linear !== linear) this.sheet = this.#painted(matrix, linear);
    const { context, sheet } = this;
    context.setTransform(still
      ? new DOMMatrix([1, 0, 0, 1, matrix[4] - sheet.matrix[4], matrix[5] - sheet.matrix[5]])
      : new DOMMatrix(matrix).multiply(new DOMMatrix(sheet.matrix).inverse()));
    context.drawImage(sheet.canvas, 0, 0);
    context.setTransform(...matrix);
  }

  /** Image of all fetched outlines, including those in the margin around the viewport. */
  #painted(matrix, linear) {
    const [wide, tall] = [this.canvas.width, this.canvas.height].map((side) => Math.ceil(side * MARGIN));
    const canvas = new OffscreenCanvas(this.canvas.width + 2 * wide, this.canvas.height + 2 * tall);
    const context = canvas.getContext("2d");
    const own = [...matrix.slice(0, 4), matrix[4] + wide, matrix[5] + tall];
    context.setTransform(...own);
    this.groups.forEach((group) => this.#line(group.path, group, context));
    return { canvas, matrix: own, linear };
  }

  #line(path, { status, verdict, colour = STATUSES[status].colour, wide = 1, fill = this.style.fill }, context = this.context) {
    const zoom = this.view.zoom();
    const thin = status ? Math.max(0.4, Math.min(1, (this.side * zoom) / FULL_LINE_PX)) : 1;
    const width = (this.style.width * wide * thin) / zoom;
    const dash = DASHES[verdict] ?? DASHES[status] ?? [];
    context.lineJoin = "round";
    context.globalAlpha = this.style.opacity * fill;
    context.fillStyle = context.strokeStyle = colour;
    if (fill > 0) context.fill(path, "evenodd");
    if (!(width > 0)) return;
    context.setLineDash(dash.map((length) => length / zoom));
    if (thin === 1) {
      context.globalAlpha = this.style.opacity * 0.35;
      context.strokeStyle = "#000";
      context.lineWidth = width + 1.5 / zoom;
      context.stroke(path);
    }
    context.globalAlpha = this.style.opacity;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke(path);
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  /** Id of the topmost drawn shape (`d0`) or object at a position. */
  under(point) {
    const inside = (path) => this.probe.isPointInPath(path, point.x, point.y, "evenodd");
    const drawn = this.drawings.findLastIndex((drawing) => inside(pathOf(drawing.rings)));
    if (drawn >= 0) return `d${drawn}`;
    const near = this.style.visible && !this.dense ? this.shown.objects : [];
    return near.findLast(({ id, status, path }) => {
      if (id === null) return false;
      const [x, y, xEnd, yEnd] = this.objects[id].box;
      const here = point.x >= x && point.y >= y && point.x <= xEnd && point.y <= yEnd;
      return here && this.style.shows(status) && inside(path);
    })?.id ?? null;
  }

  #coverageTable() {
    const all = this.slide.compared || this.slide.predicted ? ALL_OF.objects : ALL_OF.truth;
    return coverageTable(all.map((status) => (this.style.shows(status) ? STATUSES[status].colour : null)));
  }
}

/** Path of rings in level-0 pixels. */
export function pathOf(rings, closed = true) {
  const path = new Path2D();
  for (const ring of rings) {
    ring.forEach(([x, y], number) => (number ? path.lineTo(x, y) : path.moveTo(x, y)));
    if (closed) path.closePath();
  }
  return path;
}
