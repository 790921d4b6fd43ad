// Owns tile sources: maps a layer's levels to OpenSeadragon, exactly even for odd sizes.

const OSD = window.OpenSeadragon;
let made = 0;

/** Source of a layer's coarsest level only, which is drawn below the seams between tiles. */
export const coarsestSource = (slide, layer) => levelSource(slide, layer, 1);

/** Source of a layer with the levels and the tile grid of the store, the coarsest level first. */
export function levelSource(slide, layer, most = Infinity) {
  const levels = [...layer.levels].reverse().slice(0, most);
  const finest = levels.length - 1;
  const tall = slide.height / slide.width;
  const source = new OSD.TileSource({
    width: slide.width, height: slide.height, minLevel: 0, maxLevel: finest,
    tileWidth: levels[finest].tileWidth, tileHeight: levels[finest].tileHeight,
  });
  source.id = made += 1;
  const grid = (level) => new OSD.Point(
    Math.ceil(levels[level].width / levels[level].tileWidth),
    Math.ceil(levels[level].height / levels[level].tileHeight));
  source.getLevelScale = (level) => levels[level].width / slide.width;
  source.getTileWidth = (level) => levels[level].tileWidth;
  source.getTileHeight = (level) => levels[level].tileHeight;
  source.getNumTiles = grid;
  source.getTileAtPoint = (level, point) => {
    const { width, height, tileWidth, tileHeight } = levels[level];
    const last = grid(level);
    return new OSD.Point(
      Math.min(Math.floor(point.x * width / tileWidth), last.x - 1),
      Math.min(Math.floor(point.y / tall * height / tileHeight), last.y - 1));
  };
  source.getTileBounds = (level, x, y, inTile) => {
    const { width, height, tileWidth, tileHeight } = levels[level];
    const [left, top] = [x * tileWidth, y * tileHeight];
    const [w, h] = [Math.min(tileWidth, width - left), Math.min(tileHeight, height - top)];
    if (inTile) return new OSD.Rect(0, 0, w, h);
    return new OSD.Rect(left / width, top / height * tall, w / width, h / height * tall);
  };
  const address = `slides/${encodeURIComponent(slide.name)}/layers/${encodeURIComponent(layer.id)}`;
  source.getTileUrl = (level, x, y) =>
    `${address}/${layer.levels.length - 1 - level}/${y}/${x}?v=${encodeURIComponent(layer.version)}`;
  return source;
}

const KEYS = {
  value: (r) => r,
  errors: (r, g) => r + 256 * [0, 2, 1][Math.round(g / 127.5)],
  coverage: (r, g, b) => (r >> 4) | ((g >> 4) << 4) | ((b >> 4) << 8),
};

/** Source of object densities; see `coverageTable`. */
export const coverageSource = (slide, layer, table) => valueSource(slide, layer, "coverage", table);

/** Source of a layer of values, painted with a colour table that may change at any time. */
export function valueSource(slide, layer, mode, table) {
  const source = levelSource(slide, layer);
  // Modes of the same layer share requests, but not painted tiles.
  source.getTileHashKey = (level, x, y, url) => `${mode} ${url}`;
  const live = new Set();
  let colours = table;
  const paint = (tile) => {
    const { width, height } = tile.context.canvas;
    const pixels = Uint32Array.from(tile.keys, (key) => colours[key]);
    tile.context.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  };
  source.downloadTileStart = (job) => {
    const stop = new AbortController();
    job.userData.stop = stop;
    fetch(job.src, { signal: stop.signal })
      .then((answer) => {
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        return answer.blob();
      })
      .then((blob) => createImageBitmap(blob, { colorSpaceConversion: "none" }))
      .then((bitmap) => {
        const tile = decoded(bitmap, KEYS[layer.kind] ?? KEYS.value);
        paint(tile);
        job.finish(tile, null, null);
      })
      .catch((error) => { if (!stop.signal.aborted) job.finish(null, null, String(error)); });
  };
  source.downloadTileAbort = (job) => job.userData.stop?.abort();
  source.createTileCache = (cache, tile) => { cache.tile = tile; live.add(tile); };
  source.destroyTileCache = (cache) => { live.delete(cache.tile); cache.tile = null; };
  source.getTileCacheData = (cache) => cache.tile.context.canvas;
  source.getTileCacheDataAsContext2D = (cache) => cache.tile.context;
  source.hasTransparency = () => true;
  source.repaint = (next) => { colours = next; live.forEach(paint); };
  return source;
}

function decoded(bitmap, keyOf) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const keys = new Uint16Array(canvas.width * canvas.height);
  for (let at = 0, from = 0; at < keys.length; at += 1, from += 4) keys[at] = keyOf(data[from], data[from + 1], data[from + 2]);
  return { context, keys };
}
