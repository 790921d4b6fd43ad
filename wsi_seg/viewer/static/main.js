// Owns the page: opens slides, and connects the viewer, layers, objects, review and keyboard.

import { listObjects, listSlides, openSlide } from "./api.js";
import { Bookmarks } from "./bookmarks.js";
import { element, showMessage } from "./dom.js";
import { Hud } from "./hud.js";
import { Layers } from "./layers.js";
import { Area, Distance, MEASURE_COLOUR } from "./measure.js";
import { describe, ObjectList } from "./objects.js";
import { Overlay } from "./overlay.js";
import { PanDrawer } from "./pan.js";
import { Pen } from "./pen.js";
import { readPlace, writePlace } from "./place.js";
import { Queue } from "./queue.js";
import { Review } from "./review.js";
import { listSlideLinks } from "./slides.js";
import { Style } from "./style.js";
import { View } from "./view.js";

const OSD = window.OpenSeadragon;
const at = (id) => document.getElementById(id);
const FIRST_PICTURE_MS = 2000;
const QUARTER = 90;
const ERASE_COLOUR = "#b34a00";
const REVIEWING = new Set(["draw", "outline", "merge", "erase", "split"]);
const narrow = () => matchMedia("(max-width: 1000px)").matches;

const viewer = OSD({
  id: "viewer", drawer: PanDrawer, showNavigationControl: false, showNavigator: true, navigatorId: "navigator",
  navigatorAutoFade: false, animationTime: 0.35, springStiffness: 9, maxZoomPixelRatio: 16, visibilityRatio: 0.3,
  minZoomImageRatio: 0.7, minPixelRatio: 0.35, imageLoaderLimit: 8, maxImageCacheCount: 300, zoomPerScroll: 1.3, preserveImageSizeOnResize: true,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { clickToZoom: false, pinchRotate: true },
  gestureSettingsPen: { clickToZoom: false }, placeholderFillStyle: null, preserveViewport: true, subPixelRoundingForTransparency: 2,
  smoothTileEdgesMinZoom: Infinity, // smooth edges use a second canvas, which is placed at whole pixels
});
viewer.innerTracker.keyHandler = null;
viewer.innerTracker.keyDownHandler = null;

let slide = null;
let catalog = null;
let objects = [];
let chosen = null;
let pointer = null;

const view = new View(viewer);
const style = new Style();
const layers = new Layers(viewer, remember);
const overlay = new Overlay(viewer, view, style);
const pen = new Pen(viewer, view, overlay);
const hud = new Hud(view);
const list = new ObjectList(choose);
const placeSeen = () => ({ ...view.centre(), zoom: view.zoom(), rotation: view.rotation() });
const bookmarks = new Bookmarks((place) => view.goTo(place, false), placeSeen);
const queue = new Queue((box) => view.fit(box));
const review = new Review(() => {
  overlay.verdicts = list.verdicts = review.verdicts;
  overlay.drawings = review.drawings;
  if (typeof chosen === "string" && Number(chosen.slice(1)) >= review.drawings.length) chosen = overlay.chosen = null;
  overlay.restyle();
  list.draw();
  showChosen();
});

let remembering = 0;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    if (!slide || !viewer.world.getItemCount()) return;
    writePlace({ slide: slide.name, ...placeSeen(), ...layers.state() });
  }, 150);
}

async function open(name, place = {}) {
  try {
    const opened = await openSlide(name);
    slide = view.slide = opened;
    objects = [];
    putTool();
    choose(null);
    for (const link of at("slides").querySelectorAll("a")) link.setAttribute("aria-current", link.dataset.slide === name);
    at("slide-name").textContent = document.title = name;
    const size = `${slide.width.toLocaleString("en")} × ${slide.height.toLocaleString("en")} px`;
    at("facts").textContent = slide.mpp ? `${size} · ${+slide.mpp.toPrecision(4)} µm per pixel` : `${size} · µm per pixel unknown`;
    at("warnings").hidden = !slide.warnings.length;
    at("warnings").replaceChildren(...slide.warnings.map((text) => element("p", {}, text)));
    // The viewport knows the window's current size only when it draws.
    viewer.addOnceHandler("update-viewport", () => view.goTo(place));
    hud.open(slide);
    bookmarks.open(slide);
    dispatchEvent(new CustomEvent("slide", { detail: name }));
    layers.open(slide, place);
    style.open(slide);
    overlay.open(slide);
    list.open(slide, []);
    await firstPicture();
    if (slide === opened) await openObjects();
  } catch (error) {
    showMessage(error.message);
  }
}

/** Wait for the visible tiles, for a limited time, because objects keep the server busy. */
function firstPicture() {
  return new Promise((done) => {
    setTimeout(done, FIRST_PICTURE_MS);
    const look = () => {
      if (layers.loaded) done();
      else setTimeout(look, 30);
    };
    look();
  });
}

async function openObjects() {
  const here = slide;
  at("object-count").textContent = "loading …";
  const found = await listObjects(slide.name);
  if (slide !== here) return;
  objects = found;
  list.open(slide, objects);
  style.count(counted(objects));
  await overlay.show(objects);
  if (catalog.review) await review.open(slide, reviewedClasses());
  if (slide === here) await queue.open(slide);
}

function counted(all) {
  const counts = {};
  for (const { status } of all) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

/** Classes to draw: those of the prediction, else those of the truth and other labels. */
function reviewedClasses() {
  const kinds = [slide.layers.filter((layer) => layer.kind === "probability"),
    slide.layers.filter((layer) => layer.kind === "classes" && layer.id !== "label-tissue")];
  const classes = kinds.find((some) => some.length)?.flatMap((layer) => layer.classes) ?? [];
  return [...new Map(classes.map((entry) => [entry.name, entry])).values()];
}

function choose(id, fly = false) {
  chosen = id;
  overlay.chosen = id;
  if (slide) overlay.restyle();
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
  at("remove").disabled = !drawn;
  at("undo").disabled = !review.past.length;
  at("redo").disabled = !review.future.length;
  const reviewed = Object.keys(review.verdicts).length;
  at("reviewed").textContent = objects.length ? `${reviewed} of ${objects.length.toLocaleString("en")} reviewed` : "";
  at("chosen").textContent = one ? describe(one, slide.mpp)
    : drawn ? `Drawn shape, ${review.drawings[Number(chosen.slice(1))]?.class_name}.` : "Select an object to review it.";
}

function setVerdict(verdict) {
  if (catalog.review && typeof chosen === "number") review.setVerdict(chosen, verdict);
}

function remove() {
  if (typeof chosen !== "string") return;
  const number = Number(chosen.slice(1));
  choose(null);
  review.remove(number);
}

/** Edit drawn shapes, and the selected predicted object, which becomes a drawn shape. */
function edit(operation, stroke = []) {
  if (!catalog.review) return;
  const object = typeof chosen === "number" ? overlay.shown.objects.find(({ id }) => id === chosen) : null;
  choose(null);
  review.edit(operation, stroke, object && { ...object, class: objects[object.id].class });
}

// Tools by the id of their button: the look of the pen, and the action for a finished line.
const TOOLS = {
  draw: { look: () => ({ colour: review.colour() }), done: (ring) => choose(review.add([ring])) },
  outline: { look: () => ({ colour: review.colour(), least: 1 }), done: async ([[x, y]]) => choose(await review.outline(x, y, view.zoom())) },
  merge: { look: () => ({ colour: review.colour() }), done: (ring) => edit("merge", ring) },
  erase: { look: () => ({ colour: ERASE_COLOUR }), done: (ring) => edit("erase", ring) },
  split: { look: () => ({ colour: ERASE_COLOUR }), done: (line) => edit("split", line) },
  distance: { look: () => ({ colour: MEASURE_COLOUR, straight: true }), done: (line) => measured(new Distance(line, slide.mpp)) },
  area: { look: () => ({ colour: MEASURE_COLOUR }), done: (ring) => measured(new Area(ring, slide.mpp)) },
};
let tool = null;

function takeTool(name) {
  const before = tool;
  putTool();
  if (name === before || (REVIEWING.has(name) && !catalog.review) || (name === "outline" && !catalog.sam)) return;
  tool = name;
  at(name).setAttribute("aria-pressed", true);
  pen.take(TOOLS[name].look(), TOOLS[name].done);
}

function putTool() {
  if (tool) at(tool).setAttribute("aria-pressed", false);
  tool = null;
  pen.put();
}

function measured(measure) {
  overlay.measures.push(measure);
  overlay.draw();
}

function escape() {
  if (!tool) choose(null);
  putTool();
  overlay.measures = [];
  overlay.draw();
}

/** Go to the typed position: "x, y" in pixels, or in um if followed by a unit. */
function goToTyped() {
  const [, x, y, unit] = at("place").value.match(/^\s*(-?[\d.]+)[\s,;]+(-?[\d.]+)\s*(px|um|µm)?\s*$/) ?? [];
  const scale = unit && unit !== "px" ? slide.mpp : 1;
  if (x === undefined || !scale) {
    showMessage(x === undefined ? "Got no position; expected two numbers, such as 1200, 800 or 600, 400 um." : "This slide has no µm per pixel; give the position in pixels.");
    return;
  }
  view.goTo({ x: x / scale, y: y / scale, rotation: view.rotation() });
}

function showHelp() {
  const known = KEYS.filter(([[name], text]) => text && (name !== "k" || catalog.sam));
  at("keys").replaceChildren(...known.map(([names, text]) => element("div", {},
    element("dt", {}, text === "Pan" ? "Arrows" : names[0]), element("dd", {}, text))));
  at("help").showModal();
  at("help").scrollTop = 0; // showModal scrolls to the focused button at the end
}

function toggleSide(side) {
  const closed = document.body.classList.toggle(`no-${side}`);
  at(`show-${side}`).setAttribute("aria-expanded", !closed);
}

const { dataset } = document.documentElement;
/** Switch the theme, and remember the choice; the default is that of the system. */
function switchTheme() {
  dataset.theme = dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", dataset.theme); } catch { /* no storage in private windows */ }
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    showMessage("Copied a link to this view.");
  } catch {
    showMessage(`Copy this link: ${location.href}`);
  }
}

const step = (by) => { const id = list.step(by); if (id !== null) choose(id, true); };
const pan = (x, y) => viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(new OSD.Point(x, y)));
const zoomBy = (factor) => viewer.viewport.zoomBy(factor).applyConstraints();
const KEYS = [
  [["+", "="], "Zoom in", () => zoomBy(1.5)],
  [["-"], "Zoom out", () => zoomBy(1 / 1.5)],
  [["0", "Home"], "Whole slide", () => view.goTo({}, false)],
  [["r"], "Rotate by 90°", () => view.rotate(QUARTER)], [["R"], "Rotate back by 15°", () => view.rotate(-QUARTER / 6)],
  [["g"], "Go to a position", () => at("go").showModal()],
  [["m"], "Measure a distance", () => takeTool("distance")], [["a"], "Measure an area", () => takeTool("area")],
  [["ArrowLeft"], "Pan", () => pan(-120, 0)], [["ArrowRight"], "", () => pan(120, 0)],
  [["ArrowUp"], "", () => pan(0, -120)], [["ArrowDown"], "", () => pan(0, 120)],
  [["n"], "Next object", () => step(1)],
  [["p"], "Previous object", () => step(-1)],
  [["1"], "Right", () => setVerdict("right")], [["2"], "Wrong", () => setVerdict("wrong")], [["3"], "Unsure", () => setVerdict("unsure")],
  [["d"], "Draw", () => takeTool("draw")],
  [["k"], "Outline a clicked object", () => takeTool("outline")],
  [["u"], "Merge shapes", () => takeTool("merge")], [["e"], "Erase from shapes", () => takeTool("erase")],
  [["x"], "Split shapes", () => takeTool("split")], [["f"], "Fill holes", () => edit("fill")],
  [["z"], "Undo", () => review.undo()], [["y"], "Redo", () => review.redo()],
  [["Delete", "Backspace"], "Delete the selected shape", remove],
  [["b"], "Add a bookmark", () => bookmarks.add()], [["q"], "Next place to annotate", () => queue.step()],
  [["Escape"], "Cancel the tool, clear the selection", escape],
  [["["], "Lower threshold", () => layers.setThreshold(layers.threshold - 0.05)],
  [["]"], "Higher threshold", () => layers.setThreshold(layers.threshold + 0.05)],
  [["o"], "Show or hide objects", () => style.toggle()],
  [["h"], "Show or hide the prediction", () => layers.toggle(1)],
  [["s"], "Slides", () => toggleSide("slides")], [["l"], "Layers and objects", () => toggleSide("panel")],
  [["c"], "Copy link", copyLink], [["t"], "Dark or light theme", switchTheme],
  [["?"], "Keyboard shortcuts", showHelp],
];

function onKey(event) {
  const undoes = (event.ctrlKey || event.metaKey) && ["z", "y"].includes(event.key);
  if (((event.ctrlKey || event.metaKey) && !undoes) || event.altKey || event.target.matches("select, input:not([type]), input[type=search], dialog *")) return;
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
  box.hidden = typeof id !== "number" || tool !== null;
  if (box.hidden) return;
  const [head, ...rest] = describe(objects[id], slide.mpp).split(" · ");
  box.replaceChildren(element("b", {}, head), rest.join(" · "));
  box.style.left = `${Math.min(screen.x + 16, at("stage").clientWidth - 270)}px`;
  box.style.top = `${Math.min(screen.y + 16, at("stage").clientHeight - 70)}px`;
}

function connect() {
  viewer.addHandler("update-viewport", () => { if (slide) { overlay.draw(); hud.scale(); } });
  viewer.addHandler("animation-finish", () => { if (slide) { overlay.refresh(); remember(); } });
  viewer.addHandler("resize", () => setTimeout(() => slide && overlay.refresh(), 50));
  viewer.addHandler("canvas-click", (event) => {
    if (event.quick && slide && !tool) choose(overlay.under(view.toSlide(event.position)));
  });
  at("stage").addEventListener("pointermove", (event) => {
    const corner = at("stage").getBoundingClientRect();
    pointer = { x: event.clientX - corner.left, y: event.clientY - corner.top };
    requestAnimationFrame(() => { if (slide && pointer) showHover(pointer); pointer = null; });
  });
  at("stage").addEventListener("pointerleave", () => { pointer = null; at("hover").hidden = true; });
  document.addEventListener("keydown", onKey);
  viewer.addHandler("tile-load-failed", () => showMessage("Some tiles cannot be read; see the log of the command."));
  addEventListener("hashchange", () => {
    const place = readPlace();
    if (place.slide) open(place.slide, place);
  });
  const press = (id, act) => at(id).addEventListener("click", act);
  press("show-slides", () => toggleSide("slides"));
  press("show-panel", () => toggleSide("panel"));
  press("show-help", showHelp);
  press("theme", switchTheme);
  press("copy-link", copyLink);
  for (const name of Object.keys(TOOLS)) press(name, () => takeTool(name));
  press("zoom-in", () => zoomBy(1.5));
  press("zoom-out", () => zoomBy(1 / 1.5));
  press("home", () => view.goTo({}, false));
  press("rotate", () => view.rotate(QUARTER));
  press("go-to", () => at("go").showModal());
  at("go").addEventListener("close", () => { if (at("go").returnValue === "go") goToTyped(); });
  press("remove", remove);
  press("fill", () => edit("fill"));
  press("undo", () => review.undo());
  press("redo", () => review.redo());
  for (const verdict of ["right", "wrong", "unsure"]) press(`mark-${verdict}`, () => setVerdict(verdict));
  at("draw-class").addEventListener("change", () => { if (tool === "draw") pen.take(TOOLS.draw.look(), TOOLS.draw.done); });
}

async function start() {
  let stored = null;
  try { stored = localStorage.getItem("theme"); } catch { /* no storage in private windows */ }
  dataset.theme = stored ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  if (narrow()) ["slides", "panel"].forEach(toggleSide);
  connect();
  try {
    catalog = await listSlides();
  } catch (error) {
    showMessage(error.message);
    return;
  }
  at("review-box").hidden = !catalog.review;
  at("outline").hidden = !catalog.sam;
  listSlideLinks(catalog.slides, (name) => {
    if (narrow()) toggleSide("slides");
    open(name, layers.state());
  });
  if (catalog.slides.length === 1 && !narrow()) toggleSide("slides");
  const place = readPlace();
  await open(catalog.slides.includes(place.slide) ? place.slide : catalog.slides[0], place);
}

start();
