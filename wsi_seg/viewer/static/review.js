// Owns the review of a slide: verdicts and shapes, undone and redone, saved after each change.

import { editShapes, outlineAt, readReview, writeReview } from "./api.js";
import { element, tell } from "./dom.js";

export class Review {
  constructor(changed) {
    this.changed = changed;
    this.#empty();
    this.versions = new Map(); // by slide: what is on the disk, as far as this page knows
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
    this.#empty();
    this.status.textContent = "";
    this.colours = Object.fromEntries(classes.map((entry) => [entry.name, entry.colour]));
    const names = classes.map((entry) => entry.name);
    document.getElementById("draw-classes").replaceChildren(...names.map((value) => element("option", { value })));
    this.field.value = names.includes(this.field.value) ? this.field.value : names[0] ?? "object";
    await this.written; // else it would be read before it is written
    const kept = await readReview(slide.name);
    if (this.slide !== slide) return;
    this.verdicts = kept.verdicts;
    this.versions.set(slide.name, kept.version);
    this.drawings = kept.drawings.map((drawing) => this.#coloured(drawing));
    this.changed();
  }

  /** Say something about an object; the same again takes it back. */
  say(id, verdict) {
    const verdicts = { ...this.verdicts, [id]: verdict };
    if (this.verdicts[id] === verdict) delete verdicts[id];
    this.#become({ verdicts, drawings: this.drawings });
  }

  add(rings) {
    const drawing = this.#coloured({ class_name: this.className(), rings });
    this.#become({ verdicts: this.verdicts, drawings: [...this.drawings, drawing] });
    return `d${this.drawings.length - 1}`;
  }

  /** Outline what is at a place, as seen at a zoom, by the promptable model; gives the shape's id. */
  async outline(x, y, zoom) {
    const { slide } = this;
    this.status.textContent = "Looking …";
    const found = await outlineAt(slide.name, { x, y, zoom }).catch((error) => { tell(error.message); return null; });
    this.status.textContent = "";
    if (this.slide !== slide || !found) return null;
    if (found.rings.length) return this.add(found.rings);
    tell("The model finds nothing to outline here.");
    return null;
  }

  remove(number) {
    this.#become({ verdicts: this.verdicts, drawings: this.drawings.filter((_, place) => place !== number) });
  }

  /**
   * Merge, erase, split or fill shapes by a stroke: those of the class at hand where they merge, else all.
   * An object of the prediction, `{ id, class, rings }`, becomes a shape, and wrong as it was.
   */
  async edit(operation, stroke, object = null) {
    const { slide } = this;
    const verdicts = object ? { ...this.verdicts, [object.id]: "wrong" } : this.verdicts;
    const own = object ? [this.#coloured({ class_name: object.class, rings: object.rings.map((ring) => ring.slice(0, -1)) })] : [];
    const all = [...this.drawings, ...own];
    const meant = all.filter((one) => operation !== "merge" || one.class_name === (object?.class ?? this.className()));
    if (!meant.length) return;
    try {
      const { shapes } = await editShapes({ operation, stroke, shapes: meant.map(({ rings }) => rings) });
      if (this.slide !== slide) return;
      const became = new Map(meant.map((one, number) => [one, shapes[number].map((rings) => ({ ...one, rings }))]));
      this.#become({ verdicts, drawings: all.flatMap((one) => became.get(one) ?? [one]) });
    } catch (error) {
      tell(error.message);
    }
  }

  undo() {
    this.#travel(this.past, this.future);
  }

  redo() {
    this.#travel(this.future, this.past);
  }

  className() {
    return this.field.value.trim() || "object";
  }

  colour() {
    return this.colours[this.field.value.trim()] ?? "#d55e00";
  }

  #coloured(drawing) {
    return { ...drawing, colour: this.colours[drawing.class_name] ?? "#d55e00" };
  }

  #empty() {
    Object.assign(this, { verdicts: {}, drawings: [], past: [], future: [] });
  }

  #become(next) {
    this.past.push({ verdicts: this.verdicts, drawings: this.drawings });
    this.future.length = 0;
    Object.assign(this, next);
    this.#save();
  }

  #travel(from, to) {
    const next = from.pop();
    if (!next) return;
    to.push({ verdicts: this.verdicts, drawings: this.drawings });
    Object.assign(this, next);
    this.#save();
  }

  #save() {
    this.changed();
    this.status.textContent = "Saving …";
    clearTimeout(this.saving);
    const { slide } = this;
    const review = {
      verdicts: { ...this.verdicts },
      drawings: this.drawings.map(({ class_name, rings }) => ({ class_name, rings })),
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
      const version = await writeReview(slide.name, review, this.versions.get(slide.name));
      this.versions.set(slide.name, version);
      this.unwritten -= 1;
      if (!this.pending && !this.unwritten) this.status.textContent = "Review saved";
    } catch (error) {
      this.unwritten -= 1;
      this.status.textContent = "Not saved";
      tell(error.message);
    }
  }
}
