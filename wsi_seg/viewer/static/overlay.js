// Owns outlines over the picture: drawn as vectors, found again under the cursor, drawn by hand.

import { outlines } from "./api.js";
import { shape } from "./dom.js";

const path = (rings) => rings.map((ring) => `M${ring.map((point) => point.join(",")).join("L")}Z`).join("");

export class Overlay {
  constructor(viewer, view) {
    this.viewer = viewer;
    this.view = view;
    this.svg = shape("svg", { id: "overlay" });
    this.group = shape("g");
    this.svg.append(this.group);
    viewer.canvas.append(this.svg);
    this.probe = new OffscreenCanvas(1, 1).getContext("2d");
    this.shown = [];
    this.drawings = [];
    this.turn = 0;
  }

  /** Show the outlines of a slide's objects; `objects` by id. */
  open(slide, objects) {
    this.slide = slide;
    this.objects = objects;
    this.shown = [];
    this.chosen = null;
    this.verdicts = {};
    this.visible = true;
    return this.refresh();
  }

  /** Fetch the outlines around what is seen, as fine as the screen shows them. */
  async refresh() {
    if (!this.objects?.length) return this.draw();
    const seen = this.view.region();
    const [w, h] = [seen.x_end - seen.x, seen.y_end - seen.y];
    this.turn += 1;
    const turn = this.turn;
    const found = await outlines(this.slide.name, {
      x: seen.x - w / 4, y: seen.y - h / 4, x_end: seen.x_end + w / 4, y_end: seen.y_end + h / 4,
      tolerance: 0.4 / this.view.zoom(),
    }).catch(() => null);
    if (found === null || turn !== this.turn) return undefined;
    this.shown = found.map(({ id, rings }) => ({ id, d: path(rings), object: this.objects[id] }));
    return this.draw();
  }

  draw() {
    const made = [];
    for (const { id, d, object } of this.visible ? this.shown : []) {
      const chosen = this.chosen === id ? "chosen" : "";
      const verdict = this.verdicts[id] ?? "";
      if (verdict !== "wrong") made.push(shape("path", { class: "halo", d }));
      const classes = `${object.kind} ${verdict} ${chosen}`;
      made.push(shape("path", { class: classes, d, stroke: object.colour, "data-object": id }));
    }
    this.drawings.forEach((drawing, number) => {
      const chosen = this.chosen === `d${number}` ? "chosen" : "";
      const d = path([drawing.ring]);
      made.push(shape("path", { class: "halo", d }));
      made.push(shape("path", { class: `drawn ${chosen}`, d, stroke: drawing.colour, "data-drawing": number }));
    });
    if (this.stroke?.length > 1) made.push(shape("path", { class: "drawn", d: path([this.stroke]), stroke: this.strokeColour }));
    this.group.replaceChildren(...made);
    this.move();
  }

  /** Follow pan and zoom. */
  move() {
    const zoom = this.view.zoom();
    const origin = this.view.toScreen({ x: 0, y: 0 });
    this.group.setAttribute("transform", `translate(${origin.x} ${origin.y}) scale(${zoom})`);
  }

  /** Id of what is under a place: a drawing (`d0`) or an object; the last drawn wins. */
  under(point) {
    const inside = (d) => this.probe.isPointInPath(new Path2D(d), point.x, point.y, "evenodd");
    const drawn = this.drawings.findLastIndex((drawing) => inside(path([drawing.ring])));
    if (drawn >= 0) return `d${drawn}`;
    const near = this.visible ? this.shown : [];
    return near.findLast(({ object: { box }, d }) =>
      point.x >= box[0] && point.y >= box[1] && point.x <= box[2] && point.y <= box[3] && inside(d))?.id ?? null;
  }

  /** Let people draw one outline after another until switched off; each is handed to `done`. */
  drawing(on, colour, done) {
    this.viewer.setMouseNavEnabled(!on);
    document.getElementById("viewer").classList.toggle("drawing", on);
    this.strokeColour = colour;
    this.stopDrawing?.abort();
    if (!on) return;
    this.stopDrawing = new AbortController();
    const listen = (name, act) => this.viewer.canvas.addEventListener(name, act, { signal: this.stopDrawing.signal });
    const place = (event) => {
      const corner = this.viewer.canvas.getBoundingClientRect();
      const point = this.view.toSlide({ x: event.clientX - corner.left, y: event.clientY - corner.top });
      return [Math.round(point.x * 10) / 10, Math.round(point.y * 10) / 10];
    };
    listen("pointerdown", (event) => {
      this.viewer.canvas.setPointerCapture(event.pointerId);
      this.stroke = [place(event)];
    });
    listen("pointermove", (event) => {
      if (!this.stroke) return;
      this.stroke.push(place(event));
      this.draw();
    });
    listen("pointerup", () => {
      const ring = thinned(this.stroke ?? [], 1 / this.view.zoom());
      this.stroke = null;
      if (ring.length >= 3) done(ring);
      this.draw();
    });
  }
}

/** Vertices at least `step` apart. */
function thinned(ring, step) {
  const kept = [];
  for (const point of ring) {
    const last = kept.at(-1);
    if (!last || Math.hypot(point[0] - last[0], point[1] - last[1]) >= step) kept.push(point);
  }
  return kept;
}
