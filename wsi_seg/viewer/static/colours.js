// Owns colours: tables that turn one value of a layer into one colour of the picture.

// Anchors of matplotlib's maps (CC0), evenly spaced; colours between them are interpolated.
const MAPS = {
  viridis: ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"],
  magma: ["000004", "1d1147", "51127c", "832681", "b73779", "e75263", "fc8961", "fec488", "fcfdbf"],
  cividis: ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "fee838"],
};
export const MAP_NAMES = Object.keys(MAPS);

// Okabe and Ito's palette (2008), distinct for colour-blind readers.
export const ERRORS = { hit: "#009e73", extra: "#d55e00", missed: "#0072b2" };

const parse = (hex) => [0, 2, 4].map((at) => parseInt(hex.replace("#", "").slice(at, at + 2), 16));

// Canvas pixels are red, green, blue, alpha in memory; all machines that run browsers are little-endian.
const packed = ([r, g, b], alpha = 255) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;

function sample(name, share) {
  const anchors = MAPS[name];
  const place = Math.min(share, 1) * (anchors.length - 1);
  const low = Math.min(Math.floor(place), anchors.length - 2);
  const [a, b] = [parse(anchors[low]), parse(anchors[low + 1])];
  return a.map((value, k) => Math.round(value + (b[k] - value) * (place - low)));
}

/** CSS gradient of a colour map, for the key. */
export function gradient(name) {
  return `linear-gradient(90deg, ${MAPS[name].map((hex) => `#${hex}`).join(", ")})`;
}

/** Table of 256 colours for a layer shown as `mode`; 768 for errors (value + 256 * truth). */
export function colourTable(mode, { threshold, map, classes }) {
  const above = (value) => value > 255 * threshold;
  if (mode === "errors") {
    return Uint32Array.from({ length: 768 }, (_, key) => {
      const [found, truth] = [above(key & 255), key >> 8];
      if (truth === 2) return 0;
      if (found && truth === 1) return packed(parse(ERRORS.hit));
      if (found) return packed(parse(ERRORS.extra));
      return truth === 1 ? packed(parse(ERRORS.missed)) : 0;
    });
  }
  if (mode === "classes") {
    const table = new Uint32Array(256);
    for (const entry of classes) table[entry.id] = packed(parse(entry.colour));
    table[255] = packed([128, 128, 128], 160);
    return table;
  }
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const share = value / 255;
    if (mode === "decision") return above(value) ? packed(parse(classes[0].colour)) : 0;
    if (mode === "uncertainty") {
      const doubt = 4 * share * (1 - share);
      return value ? packed(sample(map, doubt), Math.round(255 * Math.min(1, doubt * 1.5))) : 0;
    }
    if (mode === "values") return packed(sample(map, share));
    return above(value) ? packed(sample(map, share)) : 0;
  });
}
