// Owns the review of a slide: verdicts and shapes, undo and redo, saving after each change.

import { editShapes, outlineAt, readReview, writeReview } from "./api.js";
import { element, showMessage } from "./dom.js";

export class Review {
  constructor(changed) {
    this.changed = changed;
    this.#empty();
    this.versions = new Map(); // last known version of each slide's review on disk
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
    await this.written; // pending writes must finish before the review is read
    const stored = await readReview(slide.name);
    if (this.slide !== slide) return;
    this.verdicts = stored.verdicts;
    this.versions.set(slide.name, stored.version);
    this.drawings = stored.drawings.map((drawing) => this.#coloured(drawing));
    this.changed();
  }

  /** Set the verdict on an object; setting the same verdict again removes it. */
  setVerdict(id, verdict) {
    const verdicts = { ...this.verdicts, [id]: verdict };
    if (this.verdicts[id] === verdict) delete verdicts[id];
    this.#change({ verdicts, drawings: this.drawings });
  }

  add(rings) {
    const drawing = this.#coloured({ class_name: this.className(), rings });
    this.#change({ verdicts: this.verdicts, drawings: [...this.drawings, drawing] });
    return `d${this.drawings.length - 1}`;
  }

  /** Outline the object at a position with the promptable model, and return the shape's id. */
  async outline(x, y, zoom) {
    const { slide } = this;
    this.status.textContent = "Outlining …";
    const found = await outlineAt(slide.name, { x, y, zoom }).catch((error) => { showMessage(error.message); return null; });
    this.status.textContent = "";
    if (this.slide !== slide || !found) return null;
    if (found.rings.length) return this.add(found.rings);
    showMessage("The model found no object here.");
    return null;
  }

  remove(number) {
    this.#change({ verdicts: this.verdicts, drawings: this.drawings.filter((_, place) => place !== number) });
  }

  /**
   * Merge, erase, split or fill shapes by a stroke: shapes of the current class for a merge, else all.
   * A predicted object, `{ id, class, rings }`, becomes a shape, and is marked wrong itself.
   */
  async edit(operation, stroke, object = null) {
    const { slide } = this;
    const verdicts = object ? { ...this.verdicts, [object.id]: "wrong" } : this.verdicts;
    const own = object ? [this.#coloured({ class_name: object.class, rings: object.rings.map((ring) => ring.slice(0, -1)) })] : [];
    const all = [...this.drawings, ...own];
    const affected = all.filter((one) => operation !== "merge" || one.class_name === (object?.class ?? this.className()));
    if (!affected.length) return;
    try {
      const { shapes } = await editShapes({ operation, stroke, shapes: affected.map(({ rings }) => rings) });
      if (this.slide !== slide) return;
      const results = new Map(affected.map((one, number) => [one, shapes[number].map((rings) => ({ ...one, rings }))]));
      this.#change({ verdicts, drawings: all.flatMap((one) => results.get(one) ?? [one]) });
    } catch (error) {
      showMessage(error.message);
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

  #change(next) {
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

  /** Save pending changes now. */
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
      showMessage(error.message);
    }
  }
}
