// Owns the URL hash: slide, centre, zoom, rotation, layers and threshold.

export function readPlace() {
  const given = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (given.has(name) && Number.isFinite(Number(given.get(name))) ? Number(given.get(name)) : null);
  const on = given.has("on")
    ? Object.fromEntries(given.get("on").split(",").filter(Boolean).map((part) => {
      const cut = part.lastIndexOf("~");
      const opacity = Number(part.slice(cut + 1));
      return [part.slice(0, cut), opacity > 0 && opacity <= 1 ? opacity : 0.6];
    }))
    : null;
  return { slide: given.get("slide"), x: number("x"), y: number("y"), zoom: number("zoom"), rotation: number("r"), threshold: number("t"), on };
}

export function writePlace({ slide, x, y, zoom, rotation, threshold, on }) {
  const place = new URLSearchParams({
    slide, x: Math.round(x), y: Math.round(y), zoom: zoom.toPrecision(4), r: rotation, t: threshold.toFixed(2),
    on: Object.entries(on).map(([id, opacity]) => `${id}~${opacity}`).join(","),
  });
  history.replaceState(null, "", `#${place}`);
}
