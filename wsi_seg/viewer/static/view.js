// Owns the transform between slide and screen, which outlines, scale bar and cursor share.

const OSD = window.OpenSeadragon;
const UM_AT_1X = 10; // by convention: 0.25 um per pixel is 40x

export class View {
  constructor(viewer) {
    this.viewer = viewer;
    this.slide = null;
    // OpenSeadragon updates the positions of tiles if centre, zoom or rotation change, but not if
    // only the height of the window does; setting a clip, even null, forces an update.
    viewer.addHandler("resize", () => this.#items().forEach((item) => item.setClip(item.getClip())));
    this.#watchPixelRatio();
  }

  /** Convert CSS pixels of the stage to level-0 pixels. */
  toSlide(screen) {
    const point = this.viewer.viewport.pointFromPixel(new OSD.Point(screen.x, screen.y), true);
    return { x: point.x * this.slide.width, y: point.y * this.slide.width };
  }

  toScreen({ x, y }) {
    const { width } = this.slide;
    return this.viewer.viewport.pixelFromPoint(new OSD.Point(x / width, y / width), true);
  }

  /** Transform from level-0 pixels to canvas pixels, as arguments of `setTransform`. */
  matrix() {
    const { width } = this.slide;
    const origin = this.toScreen({ x: 0, y: 0 });
    const right = this.toScreen({ x: width, y: 0 });
    const down = this.toScreen({ x: 0, y: width });
    return [
      (right.x - origin.x) / width, (right.y - origin.y) / width,
      (down.x - origin.x) / width, (down.y - origin.y) / width, origin.x, origin.y,
    ].map((value) => value * OSD.pixelDensityRatio);
  }

  /** Screen pixels per level-0 pixel. */
  zoom() {
    const { viewport } = this.viewer;
    return (viewport.getZoom(true) * viewport.getContainerSize().x) / this.slide.width;
  }

  /** um per screen pixel; null if the slide's mpp is unknown. */
  mpp() {
    return this.slide.mpp ? this.slide.mpp / this.zoom() : null;
  }

  magnification() {
    return UM_AT_1X / this.mpp();
  }

  rotation() {
    return OSD.positiveModulo(Math.round(this.viewer.viewport.getRotation() * 10) / 10, 360);
  }

  rotate(by) {
    this.viewer.viewport.rotateTo(this.rotation() + by);
  }

  /** Axis-aligned bounding box of the viewport, in level-0 pixels. */
  region() {
    const seen = this.viewer.viewport.getBounds(true).getBoundingBox();
    const { width } = this.slide;
    return {
      x: seen.x * width, y: seen.y * width,
      x_end: (seen.x + seen.width) * width, y_end: (seen.y + seen.height) * width,
    };
  }

  centre() {
    const { x, y } = this.viewer.viewport.getCenter(true);
    return { x: x * this.slide.width, y: y * this.slide.width };
  }

  fit([x, y, xEnd, yEnd]) {
    const around = Math.max(xEnd - x, yEnd - y, 64) * 1.2;
    const box = [x - around, y - around, xEnd - x + 2 * around, yEnd - y + 2 * around];
    this.viewer.viewport.fitBounds(new OSD.Rect(...box.map((value) => value / this.slide.width)));
  }

  /** Go to a position, or show the whole slide if none is given. */
  goTo({ x, y, zoom, rotation }, immediately = true) {
    const { viewport } = this.viewer;
    viewport.rotateTo(rotation ?? 0, null, immediately);
    if (x == null || y == null) {
      // OpenSeadragon's own home bounds are a square until the first layer is loaded.
      viewport.fitBounds(new OSD.Rect(0, 0, 1, this.slide.height / this.slide.width), immediately);
      return;
    }
    if (zoom > 0) viewport.zoomTo((zoom * this.slide.width) / viewport.getContainerSize().x, null, immediately);
    viewport.panTo(new OSD.Point(x / this.slide.width, y / this.slide.width), immediately);
  }

  #items() {
    const { world } = this.viewer;
    return Array.from({ length: world.getItemCount() }, (_, number) => world.getItemAt(number));
  }

  /** Resize when the pixel ratio changes, as on another screen, even if the window keeps its size. */
  #watchPixelRatio() {
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => {
      dispatchEvent(new Event("resize"));
      this.#watchPixelRatio();
    }, { once: true });
  }
}
