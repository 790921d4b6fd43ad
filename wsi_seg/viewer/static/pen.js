// Owns the pen: lines drawn with mouse, finger or stylus, in level-0 pixels.

export class Pen {
  constructor(viewer, view, overlay) {
    this.viewer = viewer;
    this.view = view;
    this.overlay = overlay;
    this.stop = null;
  }

  /** Pass each finished line to `done` until `put` is called; straight lines keep only their ends. */
  take({ colour, straight = false, least = straight ? 2 : 3 }, done) {
    this.put();
    this.stop = new AbortController();
    this.viewer.setMouseNavEnabled(false);
    document.getElementById("viewer").classList.add("drawing");
    this.overlay.strokeColour = colour;
    const listen = (name, act) => this.viewer.canvas.addEventListener(name, act, { signal: this.stop.signal });
    listen("pointerdown", (event) => {
      this.viewer.canvas.setPointerCapture(event.pointerId);
      this.#stroke([this.#place(event)]);
    });
    listen("pointermove", (event) => {
      const { stroke } = this.overlay;
      if (!stroke) return;
      this.#stroke([...(straight ? stroke.slice(0, 1) : stroke), this.#place(event)]);
    });
    listen("pointerup", () => {
      const line = thinned(this.overlay.stroke ?? [], 1 / this.view.zoom());
      this.#stroke(null);
      if (line.length >= least) done(line);
    });
    listen("pointercancel", () => this.#stroke(null)); // a touch that became a gesture
  }

  put() {
    this.stop?.abort();
    this.stop = null;
    this.viewer.setMouseNavEnabled(true);
    document.getElementById("viewer").classList.remove("drawing");
    this.overlay.stroke = null;
  }

  #stroke(line) {
    this.overlay.stroke = line;
    this.overlay.draw();
  }

  #place(event) {
    const corner = this.viewer.canvas.getBoundingClientRect();
    const { x, y } = this.view.toSlide({ x: event.clientX - corner.left, y: event.clientY - corner.top });
    return [Math.round(x * 10) / 10, Math.round(y * 10) / 10];
  }
}

/** Remove vertices that are closer than `step` to the previous one. */
function thinned(line, step) {
  const kept = [];
  for (const point of line) {
    const last = kept.at(-1);
    if (!last || Math.hypot(point[0] - last[0], point[1] - last[1]) >= step) kept.push(point);
  }
  return kept;
}
