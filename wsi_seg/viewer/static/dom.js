// Owns creating elements and messages; names of slides and classes are always inserted as text.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Format an area, in um2 if `mpp` is known, else in px2. */
export function areaText(area, mpp) {
  const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
  if (mpp && area >= 1e5) return `${digits.format(area / 1e6)} mm²`;
  return `${digits.format(area)} ${mpp ? "µm²" : "px²"}`;
}

/** Format a length, in um if `mpp` is known, else in px. */
export function lengthText(length, mpp) {
  const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
  if (mpp && length >= 1000) return `${digits.format(length / 1000)} mm`;
  return `${digits.format(length)} ${mpp ? "µm" : "px"}`;
}

let timer = 0;

/** Show a message above the slide for a few seconds. */
export function showMessage(text) {
  const box = document.getElementById("message");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { box.hidden = true; }, 6000);
}
