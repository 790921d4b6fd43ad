// Owns the review of a slide: verdicts and drawings, saved a moment after each change.

import { readReview, writeReview } from "./api.js";
import { element, tell } from "./dom.js";

export class Review {
  constructor(changed) {
    this.changed = changed;
    this.verdicts = {};
    this.drawings = [];
    this.saving = 0;
    this.pending = null;
    this.unwritten = 0;
    this.written = Promise.resolve();
    addEventListener("pagehide", () => this.flush());
    this.field = document.getElementById("draw-class");
    this.status = document.getElementById("saved");
  }

  async open(slide, classes) {
    this.flush();
    this.slide = slide;
    this.verdicts = {};
    this.drawings = [];
    this.status.textContent = "";
    this.colours = Object.fromEntries(classes.map((entry) => [entry.name, entry.colour]));
    const names = classes.map((entry) => entry.name);
    document.getElementById("draw-classes").replaceChildren(...names.map((value) => element("option", { value })));
    this.field.value = names.includes(this.field.value) ? this.field.value : names[0] ?? "object";
    const kept = await readReview(slide.name);
    this.verdicts = kept.verdicts;
    this.drawings = kept.drawings.map((drawing) => this.#coloured(drawing));
    this.changed();
  }

  /** Say something about an object; the same again takes it back. */
  say(id, verdict) {
    if (this.verdicts[id] === verdict) delete this.verdicts[id];
    else this.verdicts[id] = verdict;
    this.#save();
  }

  add(ring) {
    this.drawings.push(this.#coloured({ class_name: this.field.value.trim() || "object", ring }));
    this.#save();
    return `d${this.drawings.length - 1}`;
  }

  erase(number) {
    this.drawings.splice(number, 1);
    this.#save();
  }

  colour() {
    return this.colours[this.field.value.trim()] ?? "#d55e00";
  }

  #coloured(drawing) {
    return { ...drawing, colour: this.colours[drawing.class_name] ?? "#d55e00" };
  }

  #save() {
    this.changed();
    this.status.textContent = "Saving …";
    clearTimeout(this.saving);
    const { slide } = this;
    const review = {
      verdicts: { ...this.verdicts },
      drawings: this.drawings.map(({ class_name, ring }) => ({ class_name, ring })),
    };
    this.pending = () => {
      this.unwritten += 1;
      this.written = this.written.then(() => this.#write(slide, review));
    };
    this.saving = setTimeout(() => this.flush(), 300);
  }

  /** Write what waits to be written now. */
  flush() {
    clearTimeout(this.saving);
    const write = this.pending;
    this.pending = null;
    write?.();
  }

  async #write(slide, review) {
    try {
      await writeReview(slide.name, review);
      this.unwritten -= 1;
      if (!this.pending && !this.unwritten) this.status.textContent = "Review saved";
    } catch (error) {
      this.unwritten -= 1;
      this.status.textContent = "Not saved";
      tell(error.message);
    }
  }
}
