// Owns the list of places to annotate next, the most useful ones first.

import { listNext } from "./api.js";
import { element, showMessage } from "./dom.js";

export class Queue {
  constructor(go) {
    this.go = go;
    this.box = document.getElementById("queue");
    this.places = [];
  }

  async open(slide) {
    this.slide = slide;
    this.places = [];
    this.at = -1;
    this.#draw();
    if (!slide.predicted) return;
    const places = await listNext(slide.name).catch((error) => { showMessage(error.message); return []; });
    if (this.slide !== slide) return;
    this.places = places;
    this.#draw();
  }

  /** Go to the next place, and from the last to the first. */
  step() {
    if (this.places.length) this.#show((this.at + 1) % this.places.length);
  }

  #show(number) {
    this.at = number;
    [...this.box.children].forEach((row, place) => row.setAttribute("aria-selected", place === number));
    this.go(this.places[number].box);
  }

  #draw() {
    document.getElementById("queue-box").hidden = !this.places.length;
    this.box.replaceChildren(...this.places.map(({ uncertainty }, number) => {
      const button = element("button", { title: `Uncertainty ${uncertainty.toFixed(2)}` }, `${number + 1}`);
      button.addEventListener("click", () => this.#show(number));
      return element("li", {}, button);
    }));
  }
}
