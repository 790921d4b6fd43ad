"""The viewer under load: first picture in a browser, tiles for 8 clients, server memory.

The floor is Python's own file server with one tile as a file, requested in the same way; the two
alternate. ``python benchmarks/bench_view.py [STORE [PREDICTION]] [--json]``; without a store it
makes a synthetic slide. The first picture needs chromium and chromedriver, and is skipped without
them. So are frame rates: ``--objects 1000000`` makes a synthetic prediction of a million cells and
pans over it with software rendering, with and without objects; browsers draw at most 60 frames/s.
"""

import argparse
import http.client
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import psutil
from measure import Ratio, Results

from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.store import LabelInfo, PredictionInfo, create_collection
from wsi_seg.store.names import LABELS, PREDICTION_LABEL
from wsi_seg.testing.stores import write_image
from wsi_seg.testing.tissue import CLASSES, write_tissue_slide

ASKERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("prediction", nargs="?", type=Path)
    parser.add_argument("--slide", help="name of the slide; default: the largest")
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument(
        "--objects", type=int, default=0, help="number of cells of a synthetic prediction"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    store = options.store
    if store is None:
        slide, store = folder / "painted.tif", folder / "store.zarr"
        write_tissue_slide(slide, height=9216, width=12288, seed=1)
        tile_slides([slide], store, progress=Silent())
        if options.objects:
            options.prediction = folder / "pred.zarr"
            paint_cells(options.prediction, (9216, 12288), options.objects)
    shown = [store] if options.prediction is None else [store, options.prediction]
    command = [sys.executable, "-m", "wsi_seg", "view", *shown, "--read-only", "--port", "0"]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        try:
            return load(address, options, psutil.Process(server.pid))
        finally:
            server.terminate()


def load(address: str, options: argparse.Namespace, server: psutil.Process) -> Results:
    host = urlsplit(address).netloc
    names = ask(host, "/slides")["slides"]
    slides = [ask(host, f"/slides/{quote(name)}") for name in names]
    largest = max(slides, key=lambda slide: slide["height"] * slide["width"])
    slide = next((one for one in slides if one["name"] == options.slide), largest)
    results = Results(
        figures={"slide": f"{slide['name']}, {slide['width']} x {slide['height']} px"}
    )
    picture = first_picture(f"{address}#slide={quote(slide['name'])}")
    if picture is not None:
        results.figures["first picture after the page's load, s"] = round(picture, 3)
    for name, rate in frames(address, slide).items() if options.objects else ():
        results.figures[name] = rate
    layers = [one for one in slide["layers"] if one["kind"] in ("image", "probability")]
    with tempfile.TemporaryDirectory() as folder, file_server(Path(folder)) as plain:
        for layer in layers:
            results |= tiles(host, plain, slide["name"], layer, Path(folder), options)
    results.figures["server memory, MB"] = round(server.memory_info().rss / 1e6)
    return results


def tiles(
    host: str,
    plain: str,
    name: str,
    layer: dict,
    folder: Path,
    options: argparse.Namespace,
) -> Results:
    """Time tiles of one layer, and the same number of requests of a tile as a file."""
    paths = tile_paths(name, layer, options.tiles)
    connection = http.client.HTTPConnection(host)
    connection.request("GET", paths[0])
    (folder / "tile").write_bytes(connection.getresponse().read())
    connection.close()
    part = len(paths) // options.repeats
    found: dict[str, list[float]] = {"ours": [], "plain": []}
    everything: list[float] = []
    for turn in range(options.repeats):
        mine = times(host, paths[turn * part : (turn + 1) * part])
        everything += mine
        found["ours"].append(float(np.median(mine)))
        found["plain"].append(float(np.median(times(plain, ["/tile"] * part))))
    low, high = np.percentile(everything, [50, 95])
    of = f"{layer['id']} tile, {ASKERS} at once"
    return Results(
        {f"{of} / a plain file server": Ratio.of(found["ours"], found["plain"])},
        {f"{of}, p50 ms": round(low, 1), f"{of}, p95 ms": round(high, 1)},
    )


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Run Python's file server for a folder, and yield its host and port."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    command += ["--protocol", "HTTP/1.1", "--directory", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split(" port ")[1].split()[0]
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def ask(host: str, path: str) -> dict:
    connection = http.client.HTTPConnection(host)
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def tile_paths(name: str, layer: dict, count: int) -> list[str]:
    """Return paths of random tiles, evenly over all levels."""
    draw = random.Random(1)
    paths = []
    for _ in range(count):
        number = draw.randrange(len(layer["levels"]))
        level = layer["levels"][number]
        row = draw.randrange(-(-level["height"] // level["tileHeight"]))
        column = draw.randrange(-(-level["width"] // level["tileWidth"]))
        paths.append(f"/slides/{quote(name)}/layers/{layer['id']}/{number}/{row}/{column}")
    return paths


def times(host: str, paths: list[str]) -> list[float]:
    """Return the milliseconds of each response; each client uses one connection."""

    def work(mine: list[str]) -> list[float]:
        connection = http.client.HTTPConnection(host)
        taken = []
        for path in mine:
            began = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, path
            taken.append(1000 * (time.perf_counter() - began))
        connection.close()
        return taken

    with ThreadPoolExecutor(ASKERS) as askers:
        parts = askers.map(work, [paths[n::ASKERS] for n in range(ASKERS)])
        return [value for part in parts for value in part]


def paint_cells(path: Path, shape: tuple[int, int], count: int) -> None:
    """Write a prediction of about ``count`` round cells in a square grid."""
    pitch = max(4, int((shape[0] * shape[1] / count) ** 0.5))
    y, x = (np.arange(side) % pitch - (pitch - 1) / 2 for side in shape)
    cells = (y[:, None] ** 2 + x**2 < (0.38 * pitch) ** 2).astype(np.uint8)
    about = PredictionInfo(classes=CLASSES, settings={"tile_px": 256, "overlap": 0.5})
    create_collection(path)
    write_image(path / "painted", cells[:, :, None] * 200, about.to_json())
    label = LabelInfo(classes=CLASSES).to_json()
    write_image(path / "painted" / LABELS / PREDICTION_LABEL, cells, label)


PAN = """
const [done, frames] = [arguments[1], arguments[0]];
const viewer = OpenSeadragon.getViewer("viewer");
let drawn = -1, began = 0;
const step = (now) => {
  drawn += 1;
  if (drawn === 0) began = now;
  if (drawn === frames) { done(1000 * frames / (now - began)); return; }
  const by = drawn % 120 < 60 ? 6 : -6;
  const { viewport } = viewer;
  viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(by, by / 2)), true);
  requestAnimationFrame(step);
};
requestAnimationFrame(step);
"""


SWITCH = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'o', bubbles: true}))"


def frames(address: str, slide: dict) -> dict[str, float]:
    """Measure frames per second of a pan at three zooms, with and without objects."""
    rates: dict[str, float] = {}
    with browser() as page:
        if page is None:
            return rates
        for zoom in (0.1, 0.5, 2.0):
            page.get("about:blank")
            place = f"x={slide['width'] / 2}&y={slide['height'] / 2}&zoom={zoom}"
            page.get(f"{address}#slide={quote(slide['name'])}&{place}")
            wait = "return document.getElementById('object-count').textContent.includes('of')"
            while not page.execute_script(wait):
                time.sleep(0.5)
            for shown in ("with objects", "without"):
                page.execute_async_script(PAN, 120)  # all tiles are loaded from now on
                rate = page.execute_async_script(PAN, 300)
                rates[f"pan at zoom {zoom:g}, {shown}, frames/s"] = round(rate, 1)
                page.execute_script(SWITCH)
    return rates


@contextmanager
def browser() -> Iterator[Any]:
    """Start headless Chromium without a GPU; return None if it is not installed."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        yield None
        return
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1366,900"):
        options.add_argument(argument)
    page = webdriver.Chrome(options=options, service=Service(driver))
    page.set_script_timeout(300)
    try:
        yield page
    finally:
        page.quit()


def first_picture(address: str) -> float | None:
    """Return the seconds from the load event until the tiles of the first view are loaded."""
    with browser() as page:
        if page is None:
            return None
        page.get(address)
        time.sleep(4)
        return page.execute_script(
            "const load = performance.getEntriesByType('navigation')[0].loadEventEnd;"
            "const tiles = performance.getEntriesByType('resource')"
            ".filter(one => one.name.includes('/layers/image/'));"
            "return (Math.max(...tiles.map(one => one.responseEnd)) - load) / 1000"
        )


if __name__ == "__main__":
    main()
