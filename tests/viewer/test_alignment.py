"""Outlines are where the picture is: at any size, zoom, rotation and device pixel ratio."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from tests.viewer.browser import served, set_screen, started_browser
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.viewer.serve import ViewOptions

SQUARE = (500, 400, 900, 800)
CASES = 30

# Where the dark square is in the picture and where its filled outline is, once both are drawn:
# left, top, right, bottom, and middle, in CSS pixels.
MEASURE = """
const done = arguments[arguments.length - 1];
const measure = (canvas, inside) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let [left, top, right, bottom, count, x, y] = [width, height, 0, 0, 0, 0, 0];
  for (let row = 0, at = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, at += 4) {
      if (!inside(data, at)) continue;
      left = Math.min(left, column); right = Math.max(right, column + 1);
      top = Math.min(top, row); bottom = Math.max(bottom, row + 1);
      count += 1; x += column; y += row;
    }
  }
  const scale = canvas.getBoundingClientRect().width / width;
  return [left, top, right, bottom, x / count, y / count].map((value) => value * scale);
};
const { canvas: drawnOn } = OpenSeadragon.getViewer("viewer").drawer;
const both = () => ({
  picture: measure(drawnOn, (data, at) => data[at + 3] > 127 && data[at] < 128),
  overlay: measure(document.getElementById("overlay"), (data, at) => data[at + 3] > 127),
});
"""
FIND = """
const drawn = (frames) => requestAnimationFrame(() => {
  if (frames) { drawn(frames - 1); return; }
  const picture = OpenSeadragon.getViewer("viewer").drawer.canvas;
  const overlay = document.getElementById("overlay");
  const place = (canvas) => Object.values(canvas.getBoundingClientRect().toJSON());
  done({
    ...both(),
    places: [place(picture), place(overlay)],
  });
});
drawn(3);
"""

# Both places in every frame of a pan by parts of pixels, and the picture at rest and drawn again.
PAN = """
const [dx, dy] = arguments;
const viewer = OpenSeadragon.getViewer("viewer");
const found = [];
const bytes = () => {
  const { canvas } = viewer.drawer;
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.join();
};
const rest = () => {
  const before = bytes();
  viewer.forceRedraw();
  requestAnimationFrame(() => requestAnimationFrame(() => done([found, bytes() === before])));
};
const step = () => {
  if (found.length === 12) {
    setTimeout(rest, 1500); // the pan is over, and outlines are fetched again
    return;
  }
  const { viewport } = viewer;
  viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(dx, dy)), true);
  viewer.addOnceHandler("update-viewport", () => setTimeout(() => {
    found.push(both());
    requestAnimationFrame(step);
  }));
};
step();
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("square")
    x, y, x_end, y_end = SQUARE
    pixels = np.full((1200, 1600, 3), 255, dtype=np.uint8)
    pixels[y:y_end, x:x_end] = 0
    Image.fromarray(pixels).save(folder / "square.png")
    ring = [[x, y], [x_end, y], [x_end, y_end], [x, y_end], [x, y]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "square"}},
    }
    (folder / "square.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )
    tile_slides([folder / "square.png"], folder / "store.zarr", progress=Silent())
    collection = open_collection(folder / "store.zarr")
    annotate(collection, [folder / "square.geojson"], progress=Silent())
    with started_browser() as driver, served(collection, None, ViewOptions()) as address:
        driver.get(address)
        looks = json.dumps({"width": 0, "opacity": 1, "fill": 1, "hidden": []})
        driver.execute_script("localStorage.setItem('objects', arguments[0])", looks)
        driver.get("about:blank")
        driver.get(address)
        yield driver


def shown(driver):
    """Both places of the square, once all tiles and the outline are there."""
    script = """
    const { world } = OpenSeadragon.getViewer("viewer");
    const items = [...Array(world.getItemCount()).keys()].map((n) => world.getItemAt(n));
    const seen = items.filter((item) => item.getOpacity() > 0);
    return [document.getElementById("overlay").dataset.outlines, seen.length,
      seen.every((item) => item.getFullyLoaded())];
    """
    state = None
    end = time.monotonic() + 30
    while state != ["1", 2, True]:
        assert time.monotonic() < end, state
        time.sleep(0.05)
        state = driver.execute_script(script)
    return driver.execute_async_script(MEASURE + FIND)


def test_picture_and_outline_are_together(page):
    draw = np.random.default_rng(7)
    move = """
    const [x, y, zoom, turn] = arguments;
    const { viewport } = OpenSeadragon.getViewer("viewer");
    viewport.rotateTo(turn, null, true);
    viewport.zoomTo(zoom * 1600 / viewport.getContainerSize().x, null, true);
    viewport.panTo(new OpenSeadragon.Point(x / 1600, y / 1600), true);
    """
    width, height, ratio = 1000, 700, 1.0
    for case in range(CASES):
        height = int(draw.integers(300, 700))
        if case % 3:  # else only the height of the window changes
            width = int(draw.integers(340, 1100))
            ratio = float(draw.choice([1, 1.25, 1.5, 2]))
            zoom = float(np.exp(draw.uniform(np.log(0.3), np.log(2.0))))
            turn = float(draw.choice([0, 90, draw.uniform(0, 360)]))
            page.execute_script(move, *draw.uniform((600, 500), (800, 700)), zoom, turn)
        set_screen(page, width, height, ratio)
        found = shown(page)
        about = (case, width, height, ratio, found)
        assert found["places"][0] == found["places"][1], about
        apart = np.abs(np.subtract(found["picture"], found["overlay"]))
        assert apart.max() <= 1, about


@pytest.mark.parametrize(("dx", "dy"), [(7.3, -2.6), (-0.4, 0.3), (-11.5, 4.5)])
def test_they_stay_together_in_every_frame_of_a_pan(page, dx, dy):
    set_screen(page, 900, 600, 1.5)
    go = """
    const { viewport } = OpenSeadragon.getViewer("viewer");
    viewport.rotateTo(0, null, true);
    viewport.zoomTo(0.7 * 1600 / viewport.getContainerSize().x, null, true);
    viewport.panTo(new OpenSeadragon.Point(700 / 1600, 600 / 1600), true);
    """
    page.execute_script(go)
    shown(page)
    frames, same = page.execute_async_script(MEASURE + PAN, dx, dy)
    for found in frames:
        assert np.abs(np.subtract(found["picture"], found["overlay"])).max() <= 1, found
    moved = np.subtract(frames[-1]["picture"], frames[0]["picture"])[4:]
    assert np.abs(moved + np.multiply(11, (dx, dy))).max() <= 1
    assert same
