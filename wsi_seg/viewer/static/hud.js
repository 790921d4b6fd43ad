// Owns the scale bar, and the coordinates and values under the cursor.

import { valuesAt } from "./api.js";
import { element } from "./dom.js";

const BAR_PX = 150;

export class Hud {
  constructor(view) {
    this.view = view;
    this.request = null;
    this.waiting = 0;
  }

  open(slide) {
    this.slide = slide;
    this.zoom = null;
    document.getElementById("readout").replaceChildren();
  }

  /** Draw a scale bar of a round length, at most BAR_PX wide. */
  scale() {
    if (this.zoom === this.view.zoom()) return;
    this.zoom = this.view.zoom();
    const unit = this.slide.mpp ?? 1;
    const most = (BAR_PX * unit) / this.view.zoom();
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((step) => step * power).find((step) => step <= most) ?? power;
    const named = this.slide.mpp === null ? `${length} px` : length >= 1000 ? `${length / 1000} mm` : `${+length.toPrecision(1)} µm`;
    document.querySelector("#scale span").textContent = named;
    const mpp = this.view.mpp();
    document.getElementById("magnification").textContent = mpp
      ? `${+this.view.magnification().toPrecision(2)}× · ${+mpp.toPrecision(3)} µm per pixel`
      : `${+this.view.zoom().toPrecision(2)}:1 · µm per pixel unknown`;
    document.querySelector("#scale i").style.width = `${(length / unit) * this.view.zoom()}px`;
  }

  /** Show the coordinates of the cursor, and the values of the layers there. */
  at(point) {
    const inside = point.x >= 0 && point.y >= 0 && point.x < this.slide.width && point.y < this.slide.height;
    if (!inside) return;
    this.#write(point, {});
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.#ask(point), 40);
  }

  async #ask(point) {
    this.request?.abort();
    this.request = new AbortController();
    const values = await valuesAt(this.slide.name, point.x, point.y, this.request.signal).catch(() => null);
    if (values) this.#write(point, values);
  }

  #write(point, values) {
    const { mpp, layers } = this.slide;
    const whole = (value) => Math.floor(value).toLocaleString("en");
    const parts = [`x ${whole(point.x)}, y ${whole(point.y)} px`];
    if (mpp) parts.push(`${(point.x * mpp).toFixed(1)}, ${(point.y * mpp).toFixed(1)} µm`);
    for (const layer of layers) {
      const value = values[layer.id];
      if (value === undefined) continue;
      if (layer.kind === "probability") {
        parts.push(element("span", {}, `${layer.classes[0].name} `, element("b", {}, (value / 255).toFixed(2))));
      } else if (value) {
        const name = value === 255 ? "ignored" : layer.classes.find((entry) => entry.id === value)?.name ?? value;
        const title = layer.title.toLowerCase();
        parts.push(title === name ? name : `${title}: ${name}`);
      }
    }
    const spaced = parts.flatMap((part, number) => (number ? [" · ", part] : [part]));
    document.getElementById("readout").replaceChildren(...spaced);
  }
}
