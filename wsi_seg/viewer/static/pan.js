// Owns fast panning: the canvas is shifted, and only newly exposed strips are drawn.

const OSD = window.OpenSeadragon;

/** OpenSeadragon's canvas drawer redraws all tiles of all layers in each frame; this one reuses them. */
export class PanDrawer extends OSD.CanvasDrawer {
  constructor(options) {
    super(options);
    this.before = null;
    this.viewer.addHandler("tile-ready", () => { this.before = null; });
    // Pans move by whole pixels; at rest, everything is redrawn at its exact position.
    this.viewer.addHandler("animation-finish", () => this.viewer.forceRedraw());
  }

  /** No overlap: tiles enlarged by a pixel to hide seams would be up to a pixel off. */
  minimumOverlapRequired() {
    return false;
  }

  draw(items) {
    const now = this.#frame(items);
    const { before } = this;
    const [x, y] = before && before.look === now.look
      ? [Math.round(now.x - before.x), Math.round(now.y - before.y)] : [0, 0];
    this.before = now;
    if ((!x && !y) || Math.abs(x) >= this.canvas.width || Math.abs(y) >= this.canvas.height) {
      super.draw(items);
      return;
    }
    [now.x, now.y] = [before.x + x, before.y + y];
    this.#move(x, y);
    this.#inStrips(x, y, items);
  }

  /** Position of the slide's corner on the canvas, and a key of everything else that affects a frame. */
  #frame(items) {
    const at = (x, y) => this.viewport.pixelFromPoint(new OSD.Point(x, y), true).times(OSD.pixelDensityRatio);
    const [corner, right] = [at(0, 0), at(1, 0)];
    const side = right.minus(corner);
    const size = this._calculateCanvasSize();
    const shown = items.map((item) => [item.getOpacity(), item.source.id]);
    const look = JSON.stringify([side.x.toFixed(4), side.y.toFixed(4), size.x, size.y, shown]);
    return { x: corner.x, y: corner.y, look };
  }

  #move(x, y) {
    const { context } = this;
    context.save();
    context.globalCompositeOperation = "copy";
    context.imageSmoothingEnabled = false;
    context.drawImage(this.canvas, x, y);
    context.restore();
  }

  /** Draw the tiles in the strips that a move exposed, along one or two sides. */
  #inStrips(x, y, items) {
    const { width, height } = this.canvas;
    const strips = new Path2D();
    strips.rect(x > 0 ? 0 : width + x, 0, Math.abs(x), height);
    strips.rect(Math.max(0, x), y > 0 ? 0 : height + y, width - Math.abs(x), Math.abs(y));
    const contexts = [this.context, this._getContext(true)];
    for (const context of contexts) {
      context.save();
      context.clip(strips);
    }
    for (const item of items) if (item.getOpacity() !== 0) this._drawTiles(item);
    for (const context of contexts) context.restore();
  }
}
