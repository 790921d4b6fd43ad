// Owns two viewers side by side: where one goes, the other goes too.

const SIDES = ["first", "second"];
const FIRST_TITLE = "wsi_seg viewer"; // until a slide is open
const frames = [...document.querySelectorAll("iframe")];

/** Viewer of a frame, once its page has made it. */
async function viewerOf(frame) {
  for (;;) {
    const viewer = frame.contentWindow.OpenSeadragon?.getViewer("viewer");
    if (viewer) return viewer;
    await new Promise((done) => { setTimeout(done, 20); });
  }
}

/** Bring one viewport to the place of another; both show the same slide, whose width is 1. */
function follow(one, other) {
  const { viewport } = one;
  // Each pixel of the slide is as large in both, though the frames need not be.
  const scale = viewport.getContainerSize().x / other.viewport.getContainerSize().x;
  other.viewport.rotateTo(viewport.getRotation(true), null, true);
  other.viewport.zoomTo(viewport.getZoom(true) * scale, null, true);
  other.viewport.panTo(viewport.getCenter(true), true);
}

/** Let the last one that a person touched lead; what it does, the other does in the same frame. */
function join(viewers) {
  let leader = 0;
  const lead = (side) => () => { leader = side; };
  viewers.forEach((viewer, side) => {
    for (const event of ["pointerdown", "wheel", "keydown"]) {
      frames[side].contentWindow.addEventListener(event, lead(side), { capture: true });
    }
    // Also when the one that follows went elsewhere: it may have opened the slide only now.
    viewer.addHandler("viewport-change", () => follow(viewers[leader], viewers[1 - leader]));
  });
}

/** Open the slide that one viewer opened in the other too. */
function joinSlides() {
  frames.forEach((frame, side) => {
    frame.contentWindow.addEventListener("slide", ({ detail }) => {
      const other = frames[1 - side].contentWindow;
      // What opens for the first time has the address of this page.
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
