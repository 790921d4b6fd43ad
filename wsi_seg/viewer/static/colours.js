// Owns colours: lookup tables from values of a layer to colours.

// Evenly spaced samples of matplotlib's colour maps (CC0), to interpolate between.
const MAPS = {
  viridis: ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"],
  magma: ["000004", "1d1147", "51127c", "832681", "b73779", "e75263", "fc8961", "fec488", "fcfdbf"],
  cividis: ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "fee838"],
};
export const MAP_NAMES = Object.keys(MAPS);

// Okabe and Ito's palette (2008), which colour-blind people can distinguish; missed and false are dashed, too.
export const STATUSES = {
  found: { title: "Found", colour: "#e69f00", about: "Predicted objects; if there is a truth, those that are mostly true" },
  false: { title: "False", colour: "#0072b2", about: "Found, but mostly not true" },
  missed: { title: "Missed", colour: "#d55e00", about: "True, but not found" },
  true: { title: "Truth", colour: "#009e73", about: "True objects" },
};
const ABOVE = "#cc79a7";

const parse = (hex) => [0, 2, 4].map((at) => parseInt(hex.replace("#", "").slice(at, at + 2), 16));

// Canvas pixels are RGBA in memory; all machines that run browsers are little-endian.
const packed = ([r, g, b], alpha = 255) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;

function sample(name, share) {
  const anchors = MAPS[name];
  const place = Math.min(share, 1) * (anchors.length - 1);
  const low = Math.min(Math.floor(place), anchors.length - 2);
  const [a, b] = [parse(anchors[low]), parse(anchors[low + 1])];
  return a.map((value, k) => Math.round(value + (b[k] - value) * (place - low)));
}

/** CSS gradient of a colour map, for the legend. */
export function gradient(name) {
  return `linear-gradient(90deg, ${MAPS[name].map((hex) => `#${hex}`).join(", ")})`;
}

/** Colour of a class in a class map; a single class has the colour of prediction or truth. */
export function classColour(entry, { classes, status }) {
  return classes.length === 1 && status ? STATUSES[status].colour : entry.colour;
}

/** Colour of pixels above the threshold. */
export const aboveColour = ({ classes, single }) => (single ? ABOVE : classes[0].colour);

/** Table of 4096 colours for three fractions of 0 to 15, the first in the lowest bits; null hides one. */
export function coverageTable(colours) {
  const shown = colours.map((colour) => colour && parse(colour));
  return Uint32Array.from({ length: 4096 }, (_, key) => {
    const mixed = [0, 0, 0];
    let total = 0;
    shown.forEach((colour, number) => {
      const share = colour ? (key >> (4 * number)) & 15 : 0;
      total += share;
      for (let k = 0; share && k < 3; k += 1) mixed[k] += share * colour[k];
    });
    // The square root keeps sparse objects visible: a tenth of the area has a third of the opacity.
    return total ? packed(mixed.map((sum) => Math.round(sum / total)), Math.round(255 * Math.sqrt(Math.min(1, total / 15)))) : 0;
  });
}

/** Table of 256 colours for a layer in a `mode`; 768 for errors (value + 256 * truth). */
export function colourTable(mode, { threshold, map, layer }) {
  const { classes } = layer;
  const above = (value) => value > 255 * threshold;
  if (mode === "errors") {
    return Uint32Array.from({ length: 768 }, (_, key) => {
      const [found, truth] = [above(key & 255), key >> 8];
      if (truth === 2) return 0;
      if (found) return packed(parse(STATUSES[truth === 1 ? "found" : "false"].colour));
      return truth === 1 ? packed(parse(STATUSES.missed.colour)) : 0;
    });
  }
  if (mode === "classes") {
    const table = new Uint32Array(256);
    for (const entry of classes) table[entry.id] = packed(parse(classColour(entry, layer)));
    table[255] = packed([128, 128, 128], 160);
    return table;
  }
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const share = value / 255;
    if (mode === "decision") return above(value) ? packed(parse(aboveColour(layer))) : 0;
    if (mode === "uncertainty") {
      const doubt = 4 * share * (1 - share);
      return value ? packed(sample(map, doubt), Math.round(255 * Math.min(1, doubt * 1.5))) : 0;
    }
    if (mode === "values") return packed(sample(map, share));
    return above(value) ? packed(sample(map, share)) : 0;
  });
}
