// Owns two viewers side by side, with synchronized viewports and slides.

const SIDES = ["first", "second"];
const FIRST_TITLE = "wsi_seg viewer"; // until a slide is open
const frames = [...document.querySelectorAll("iframe")];

/** Wait for the viewer of a frame. */
async function viewerOf(frame) {
  for (;;) {
    const viewer = frame.contentWindow.OpenSeadragon?.getViewer("viewer");
    if (viewer) return viewer;
    await new Promise((done) => { setTimeout(done, 20); });
  }
}

/** Synchronize the viewport of `other` with that of `one`; both show the same slide, whose width is 1. */
function follow(one, other) {
  const { viewport } = one;
  // Pixels of the slide have the same size in both frames, even if the frames differ in size.
  const scale = viewport.getContainerSize().x / other.viewport.getContainerSize().x;
  other.viewport.rotateTo(viewport.getRotation(true), null, true);
  other.viewport.zoomTo(viewport.getZoom(true) * scale, null, true);
  other.viewport.panTo(viewport.getCenter(true), true);
}

/** Let the viewer that the user touched last lead; the other follows in the same animation frame. */
function join(viewers) {
  let leader = 0;
  const lead = (side) => () => { leader = side; };
  viewers.forEach((viewer, side) => {
    for (const event of ["pointerdown", "wheel", "keydown"]) {
      frames[side].contentWindow.addEventListener(event, lead(side), { capture: true });
    }
    // The follower's own changes are overridden, too: it may have opened the slide later.
    viewer.addHandler("viewport-change", () => follow(viewers[leader], viewers[1 - leader]));
  });
}

/** If one viewer opens a slide, open it in the other, too. */
function joinSlides() {
  frames.forEach((frame, side) => {
    frame.contentWindow.addEventListener("slide", ({ detail }) => {
      const other = frames[1 - side].contentWindow;
      // A page that has not opened a slide yet has the hash of this page.
      const { title } = other.document;
      if (title !== detail && title !== FIRST_TITLE) other.location.hash = new URLSearchParams({ slide: detail });
    });
  });
}

async function start() {
  frames.forEach((frame, side) => { frame.src = `${SIDES[side]}/${location.hash}`; });
  await Promise.all(frames.map((frame) => new Promise((done) => { frame.addEventListener("load", done, { once: true }); })));
  joinSlides();
  join(await Promise.all(frames.map(viewerOf)));
  const names = await Promise.all(SIDES.map((side) => fetch(`${side}/slides`).then((answer) => answer.json())));
  names.forEach(({ prediction }, side) => { frames[side].previousElementSibling.textContent = prediction; });
}

start();
