// Owns making elements: text stays text, whatever a slide or class is called.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function shape(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Area as people write it; `mpp` tells whether it is in um2 or px2. */
export function areaText(area, mpp) {
  const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
  if (mpp && area >= 1e5) return `${digits.format(area / 1e6)} mm²`;
  return `${digits.format(area)} ${mpp ? "µm²" : "px²"}`;
}

let timer = 0;

/** Tell something across the top of the picture for a while. */
export function tell(text) {
  const box = document.getElementById("message");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { box.hidden = true; }, 6000);
}
