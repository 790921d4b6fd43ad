// Owns bookmarks: places of a slide that somebody wants to come back to, kept in this browser.

import { element } from "./dom.js";

const KEPT = "bookmarks";

export class Bookmarks {
  /** `go` takes a place, `here` gives one: x, y, zoom, rotation. */
  constructor(go, here) {
    this.go = go;
    this.here = here;
    this.box = document.getElementById("bookmarks");
    document.getElementById("bookmark").addEventListener("click", () => this.add());
  }

  open(slide) {
    this.slide = slide;
    this.#draw();
  }

  add() {
    this.#keep([...this.#kept(), this.here()]);
  }

  #remove(number) {
    this.#keep(this.#kept().filter((_, place) => place !== number));
  }

  #all() {
    try { return JSON.parse(localStorage.getItem(KEPT)) ?? {}; } catch { return {}; }
  }

  #kept() {
    return this.#all()[this.slide.name] ?? [];
  }

  #keep(places) {
    try {
      localStorage.setItem(KEPT, JSON.stringify({ ...this.#all(), [this.slide.name]: places }));
    } catch { /* a private window keeps nothing */ }
    this.#draw();
  }

  #draw() {
    this.box.replaceChildren(...this.#kept().map((place, number) => {
      const text = `${Math.round(place.x).toLocaleString("en")}, ${Math.round(place.y).toLocaleString("en")}`;
      const go = element("button", { title: "Go there" }, text);
      go.addEventListener("click", () => this.go(place));
      const gone = element("button", { title: "Forget this bookmark", ariaLabel: `Forget ${text}` }, "×");
      gone.addEventListener("click", () => this.#remove(number));
      return element("li", {}, go, gone);
    }));
  }
}
