// Owns the page: opens slides, and connects picture, layers, objects, review and keyboard.

import { listObjects, listSlides, openSlide, thumbnail } from "./api.js";
import { element, tell } from "./dom.js";
import { Hud } from "./hud.js";
import { Layers } from "./layers.js";
import { describe, ObjectList } from "./objects.js";
import { Overlay } from "./overlay.js";
import { readPlace, writePlace } from "./place.js";
import { Review } from "./review.js";

const OSD = window.OpenSeadragon;
const at = (id) => document.getElementById(id);
const MANY_SLIDES = 8;
const FIRST_PICTURE_MS = 2000;
const narrow = () => matchMedia("(max-width: 1000px)").matches;

const viewer = OSD({
  id: "viewer", drawer: "canvas", showNavigationControl: false, showNavigator: true, navigatorId: "navigator",
  navigatorAutoFade: false, animationTime: 0.35, springStiffness: 9, maxZoomPixelRatio: 16, visibilityRatio: 0.3,
  minZoomImageRatio: 0.7, minPixelRatio: 0.35, imageLoaderLimit: 8, maxImageCacheCount: 300, zoomPerScroll: 1.3, preserveImageSizeOnResize: true,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { clickToZoom: false },
  gestureSettingsPen: { clickToZoom: false }, placeholderFillStyle: null, preserveViewport: true, subPixelRoundingForTransparency: 2,
});
viewer.innerTracker.keyHandler = null;
viewer.innerTracker.keyDownHandler = null;

let slide = null;
let catalog = null;
let objects = [];
let chosen = null;
let pointer = null;

// Places in level-0 pixels and on the screen; zoom is screen pixels per level-0 pixel.
const view = {
  toSlide(screen) {
    const point = viewer.viewport.pointFromPixel(new OSD.Point(screen.x, screen.y), true);
    return { x: point.x * slide.width, y: point.y * slide.width };
  },
  toScreen(point) {
    return viewer.viewport.pixelFromPoint(new OSD.Point(point.x / slide.width, point.y / slide.width), true);
  },
  zoom: () => (viewer.viewport.getZoom(true) * viewer.viewport.getContainerSize().x) / slide.width,
  region() {
    const seen = viewer.viewport.getBounds(true);
    return {
      x: seen.x * slide.width, y: seen.y * slide.width,
      x_end: (seen.x + seen.width) * slide.width, y_end: (seen.y + seen.height) * slide.width,
    };
  },
  fit([x, y, xEnd, yEnd]) {
    const around = Math.max(xEnd - x, yEnd - y, 64) * 1.2;
    const box = [x - around, y - around, xEnd - x + 2 * around, yEnd - y + 2 * around];
    viewer.viewport.fitBounds(new OSD.Rect(...box.map((value) => value / slide.width)));
  },
};

const layers = new Layers(viewer, remember);
const overlay = new Overlay(viewer, view);
const hud = new Hud(view);
const list = new ObjectList(choose);
const review = new Review(() => {
  overlay.verdicts = list.verdicts = review.verdicts;
  overlay.drawings = review.drawings;
  overlay.draw();
  list.draw();
  showChosen();
});

let remembering = 0;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    if (!slide || !viewer.world.getItemCount()) return;
    const seen = view.region();
    const centre = { x: (seen.x + seen.x_end) / 2, y: (seen.y + seen.y_end) / 2 };
    writePlace({ slide: slide.name, ...centre, zoom: view.zoom(), ...layers.state() });
  }, 150);
}

async function open(name, place = {}) {
  try {
    const opened = await openSlide(name);
    slide = opened;
    objects = [];
    choose(null);
    for (const link of at("slides").querySelectorAll("a")) link.setAttribute("aria-current", link.dataset.slide === name);
    at("slide-name").textContent = document.title = name;
    const size = `${slide.width.toLocaleString("en")} × ${slide.height.toLocaleString("en")} px`;
    at("facts").textContent = slide.mpp ? `${size} · ${+slide.mpp.toPrecision(4)} µm per pixel` : `${size} · µm per pixel unknown`;
    viewer.world.addOnceHandler("add-item", () => goTo(place));
    layers.open(slide, place);
    overlay.drawings = [];
    hud.open(slide);
    list.open(slide, []);
    overlay.open(slide, []);
    await firstPicture();
    if (slide === opened) await openObjects();
  } catch (error) {
    tell(error.message);
  }
}

/** Bring a place of the slide, or all of it, into view. */
function goTo(place) {
  viewer.viewport.resize(new OSD.Point(at("viewer").clientWidth, at("viewer").clientHeight), false);
  viewer.viewport.goHome(true);
  if (place.x == null || place.y == null || !(place.zoom > 0)) return;
  viewer.viewport.zoomTo((place.zoom * slide.width) / viewer.viewport.getContainerSize().x, null, true);
  viewer.viewport.panTo(new OSD.Point(place.x / slide.width, place.y / slide.width), true);
}

/** Wait until all tiles in view are drawn, but not for ever: objects keep the server busy. */
function firstPicture() {
  return new Promise((done) => {
    setTimeout(done, FIRST_PICTURE_MS);
    const look = () => {
      const items = Array.from({ length: viewer.world.getItemCount() }, (_, n) => viewer.world.getItemAt(n));
      if (items.length && items.every((item) => item.getFullyLoaded())) done();
      else setTimeout(look, 30);
    };
    look();
  });
}

async function openObjects() {
  const here = slide;
  at("object-count").textContent = "looking …";
  const found = await listObjects(slide.name);
  if (slide !== here) return;
  objects = found;
  list.open(slide, objects);
  await overlay.open(slide, objects);
  if (catalog.review) await review.open(slide, reviewedClasses());
}

/** Classes that can be drawn: those of the prediction, else those of the truth and other labels. */
function reviewedClasses() {
  const kinds = [slide.layers.filter((layer) => layer.kind === "probability"),
    slide.layers.filter((layer) => layer.kind === "classes" && layer.id !== "label-tissue")];
  const classes = kinds.find((some) => some.length)?.flatMap((layer) => layer.classes) ?? [];
  return [...new Map(classes.map((entry) => [entry.name, entry])).values()];
}

function choose(id, fly = false) {
  chosen = id;
  overlay.chosen = id;
  if (slide) overlay.draw();
  list.mark(id);
  showChosen();
  if (fly && id !== null) view.fit(objects[id].box);
}

function showChosen() {
  const drawn = typeof chosen === "string";
  const one = drawn || chosen === null ? null : objects[chosen];
  const verdict = one ? review.verdicts[chosen] : null;
  for (const name of ["right", "wrong", "unsure"]) {
    at(`mark-${name}`).setAttribute("aria-pressed", verdict === name);
    at(`mark-${name}`).disabled = !one;
  }
  at("erase").disabled = !drawn;
  const reviewed = Object.keys(review.verdicts).length;
  at("reviewed").textContent = objects.length ? `${reviewed} of ${objects.length.toLocaleString("en")} reviewed` : "";
  at("chosen").textContent = one ? describe(one, slide.mpp)
    : drawn ? "An outline drawn here." : "Choose an object to judge it.";
}

function say(verdict) {
  if (catalog.review && typeof chosen === "number") review.say(chosen, verdict);
}

function erase() {
  if (typeof chosen !== "string") return;
  const number = Number(chosen.slice(1));
  choose(null);
  review.erase(number);
}

function setDrawing(on) {
  at("draw").setAttribute("aria-pressed", on);
  overlay.drawing(on, review.colour(), (ring) => choose(review.add(ring)));
}
const drawing = () => at("draw").getAttribute("aria-pressed") === "true";

function toggleSide(side) {
  const closed = document.body.classList.toggle(`no-${side}`);
  at(`show-${side}`).setAttribute("aria-expanded", !closed);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* a private window keeps nothing */ }
}
const otherTheme = () => (document.documentElement.dataset.theme === "dark" ? "light" : "dark");

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    tell("The link to this place is copied.");
  } catch {
    tell(`Copy this link: ${location.href}`);
  }
}

const step = (by) => { const id = list.step(by); if (id !== null) choose(id, true); };
const pan = (x, y) => viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(new OSD.Point(x, y)));
const zoomBy = (factor) => viewer.viewport.zoomBy(factor).applyConstraints();
const KEYS = [
  [["+", "="], "Zoom in", () => zoomBy(1.5)],
  [["-"], "Zoom out", () => zoomBy(1 / 1.5)],
  [["0", "Home"], "Whole slide", () => viewer.viewport.goHome()],
  [["ArrowLeft"], "Pan", () => pan(-120, 0)], [["ArrowRight"], "", () => pan(120, 0)],
  [["ArrowUp"], "", () => pan(0, -120)], [["ArrowDown"], "", () => pan(0, 120)],
  [["n"], "Next object", () => step(1)],
  [["p"], "Object before", () => step(-1)],
  [["1"], "Right", () => say("right")], [["2"], "Wrong", () => say("wrong")], [["3"], "Unsure", () => say("unsure")],
  [["d"], "Draw", () => catalog.review && setDrawing(!drawing())],
  [["Delete", "Backspace"], "Erase what was drawn", erase],
  [["Escape"], "Stop drawing, choose nothing", () => { setDrawing(false); choose(null); }],
  [["["], "Lower threshold", () => layers.setThreshold(layers.threshold - 0.05)],
  [["]"], "Higher threshold", () => layers.setThreshold(layers.threshold + 0.05)],
  [["o"], "Outlines on or off", () => { overlay.visible = !overlay.visible; overlay.draw(); }],
  [["h"], "Prediction on or off", () => layers.toggle(1)],
  [["s"], "Slides", () => toggleSide("slides")], [["l"], "Layers and objects", () => toggleSide("panel")],
  [["c"], "Copy link", copyLink], [["t"], "Dark or light", () => setTheme(otherTheme())],
  [["?"], "This list", () => at("help").showModal()],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type]), input[type=search], dialog *")) return;
  if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const [, , act] = KEYS.find(([names]) => names.includes(event.key)) ?? [];
  if (!act || !slide) return;
  event.preventDefault();
  act();
}

function showHover(screen) {
  const point = view.toSlide(screen);
  hud.at(point);
  const id = overlay.under(point);
  const box = at("hover");
  box.hidden = typeof id !== "number" || drawing();
  if (box.hidden) return;
  const [head, ...rest] = describe(objects[id], slide.mpp).split(" · ");
  box.replaceChildren(element("b", {}, head), rest.join(" · "));
  box.style.left = `${Math.min(screen.x + 16, at("stage").clientWidth - 270)}px`;
  box.style.top = `${Math.min(screen.y + 16, at("stage").clientHeight - 70)}px`;
}

function connect() {
  viewer.addHandler("update-viewport", () => { if (slide) { overlay.move(); hud.scale(); } });
  viewer.addHandler("animation-finish", () => { if (slide) { overlay.refresh(); remember(); } });
  viewer.addHandler("resize", () => setTimeout(() => slide && overlay.refresh(), 50));
  viewer.addHandler("canvas-click", (event) => {
    if (event.quick && slide && !drawing()) choose(overlay.under(view.toSlide(event.position)));
  });
  at("stage").addEventListener("pointermove", (event) => {
    const corner = at("stage").getBoundingClientRect();
    pointer = { x: event.clientX - corner.left, y: event.clientY - corner.top };
    requestAnimationFrame(() => { if (slide && pointer) showHover(pointer); pointer = null; });
  });
  at("stage").addEventListener("pointerleave", () => { pointer = null; at("hover").hidden = true; });
  document.addEventListener("keydown", onKey);
  viewer.addHandler("tile-load-failed", () => tell("Some tiles cannot be read; the command's log tells why."));
  addEventListener("hashchange", () => {
    const place = readPlace();
    if (place.slide) open(place.slide, place);
  });
  const press = (id, act) => at(id).addEventListener("click", act);
  press("show-slides", () => toggleSide("slides"));
  press("show-panel", () => toggleSide("panel"));
  press("show-help", () => at("help").showModal());
  press("theme", () => setTheme(otherTheme()));
  press("copy-link", copyLink);
  press("draw", () => setDrawing(!drawing()));
  press("erase", erase);
  for (const verdict of ["right", "wrong", "unsure"]) press(`mark-${verdict}`, () => say(verdict));
  at("draw-class").addEventListener("change", () => { if (drawing()) setDrawing(true); });
  at("keys").replaceChildren(...KEYS.filter(([, text]) => text).flatMap(([names, text]) =>
    [element("dt", {}, text === "Pan" ? "Arrows" : names[0]), element("dd", {}, text)]));
}

function listed(name) {
  const picture = element("img", { src: thumbnail(name), loading: "lazy", fetchPriority: "low", alt: "" });
  const link = element("a", { href: `#slide=${encodeURIComponent(name)}`, title: name }, picture, element("span", {}, name));
  link.dataset.slide = name;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    if (narrow()) toggleSide("slides");
    open(name, layers.state());
  });
  return link;
}

/** Links to all slides; a field to find some among many. */
function listSlideLinks(names) {
  const links = names.map(listed);
  const field = element("input", { type: "search", placeholder: "Find a slide", ariaLabel: "Find a slide" });
  field.hidden = names.length < MANY_SLIDES;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const link of links) link.hidden = !link.dataset.slide.toLowerCase().includes(wanted);
  });
  at("slides").replaceChildren(field, ...links);
}

async function start() {
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* a private window keeps nothing */ }
  setTheme(kept ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
  if (narrow()) ["slides", "panel"].forEach(toggleSide);
  connect();
  try {
    catalog = await listSlides();
  } catch (error) {
    tell(error.message);
    return;
  }
  at("review-box").hidden = !catalog.review;
  listSlideLinks(catalog.slides);
  if (catalog.slides.length === 1 && !narrow()) toggleSide("slides");
  const place = readPlace();
  await open(catalog.slides.includes(place.slide) ? place.slide : catalog.slides[0], place);
}

start();
