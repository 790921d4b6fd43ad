// Owns bookmarks: saved positions of a slide, in the browser's local storage.

import { element } from "./dom.js";

const STORAGE_KEY = "bookmarks";

export class Bookmarks {
  /** `go` moves to a position, `here` returns the current one: x, y, zoom, rotation. */
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
    this.#save([...this.#load(), this.here()]);
  }

  #remove(index) {
    this.#save(this.#load().filter((_, other) => other !== index));
  }

  #loadAll() {
    try { return JSON.parse(localStorage.getItem(STORAGE_KEY)) ?? {}; } catch { return {}; }
  }

  #load() {
    return this.#loadAll()[this.slide.name] ?? [];
  }

  #save(places) {
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify({ ...this.#loadAll(), [this.slide.name]: places }));
    } catch { /* no storage in private windows */ }
    this.#draw();
  }

  #draw() {
    this.box.replaceChildren(...this.#load().map((place, index) => {
      const text = `${Math.round(place.x).toLocaleString("en")}, ${Math.round(place.y).toLocaleString("en")}`;
      const go = element("button", { title: "Go to this bookmark" }, text);
      go.addEventListener("click", () => this.go(place));
      const remove = element("button", { title: "Delete this bookmark", ariaLabel: `Delete bookmark ${text}` }, "×");
      remove.addEventListener("click", () => this.#remove(index));
      return element("li", {}, go, remove);
    }));
  }
}
