// Owns making elements: text stays text, whatever a slide or class is called.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Area as people write it; `mpp` tells whether it is in um2 or px2. */
export function areaText(area, mpp) {
  const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
  if (mpp && area >= 1e5) return `${digits.format(area / 1e6)} mm²`;
  return `${digits.format(area)} ${mpp ? "µm²" : "px²"}`;
}

/** Length as people write it; `mpp` tells whether it is in um or px. */
export function lengthText(length, mpp) {
  const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  if (mpp && length >= 1000) return `${digits.format(length / 1000)} mm`;
  return `${digits.format(length)} ${mpp ? "µm" : "px"}`;
}

let timer = 0;

/** Say something across the top of the picture for a while. */
export function tell(text) {
  const box = document.getElementById("message");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { box.hidden = true; }, 6000);
}
