// Owns measurements: distances and areas drawn over the slide, with their values.

import { areaText, lengthText } from "./dom.js";
import { pathOf } from "./overlay.js";

export const MEASURE_COLOUR = "#f0e442";

/** Distance between the ends of a line. */
export class Distance {
  constructor(line, mpp) {
    this.line = [line[0], line.at(-1)];
    const [[x, y], [xEnd, yEnd]] = this.line;
    this.text = lengthText(Math.hypot(xEnd - x, yEnd - y) * (mpp ?? 1), mpp);
    this.place = [(x + xEnd) / 2, (y + yEnd) / 2];
  }

  draw(context, view, line) {
    line(pathOf([this.line], false), { colour: MEASURE_COLOUR, wide: 1.5, fill: 0 });
    label(context, view, this.place, this.text);
  }
}

/** Area and perimeter of a ring. */
export class Area {
  constructor(ring, mpp) {
    this.ring = ring;
    const unit = mpp ?? 1;
    let [twice, around] = [0, 0];
    ring.forEach(([x, y], number) => {
      const [xNext, yNext] = ring[(number + 1) % ring.length];
      twice += x * yNext - xNext * y;
      around += Math.hypot(xNext - x, yNext - y);
    });
    const area = areaText((Math.abs(twice) / 2) * unit ** 2, mpp);
    this.text = `${area}, perimeter ${lengthText(around * unit, mpp)}`;
    this.place = [0, 1].map((axis) => ring.reduce((sum, point) => sum + point[axis], 0) / ring.length);
  }

  draw(context, view, line) {
    line(pathOf([this.ring]), { colour: MEASURE_COLOUR, wide: 1.5, fill: 0.15 });
    label(context, view, this.place, this.text);
  }
}

function label(context, view, [x, y], text) {
  const [a, b, c, d, e, f] = view.matrix();
  const ratio = window.OpenSeadragon.pixelDensityRatio;
  context.save();
  context.setTransform(ratio, 0, 0, ratio, a * x + c * y + e, b * x + d * y + f);
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  const width = context.measureText(text).width + 14;
  context.fillStyle = "#000c";
  context.fillRect(-width / 2, -12, width, 24);
  context.fillStyle = "#fff";
  context.fillText(text, 0, 1);
  context.restore();
}
