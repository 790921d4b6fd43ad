"""The viewer under load: first picture in a browser, tiles for 8 askers at once, server memory.

``python benchmarks/bench_view.py [STORE [PREDICTION]] [--json]``; without a store it paints a
slide. The first picture needs chromium and chromedriver; without them it is left out.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import psutil

from wsi_seg.progress import Silent
from wsi_seg.store.tile import tile_slides
from wsi_seg.testing.tissue import write_tissue_slide

ASKERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("prediction", nargs="?", type=Path)
    parser.add_argument("--slide", help="name in the store; default: the largest")
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    lines = [f"{name}: {value}" for name, value in figures.items()]
    print(json.dumps(figures) if options.json else "\n".join(lines))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    store = options.store
    if store is None:
        slide, store = folder / "painted.tif", folder / "store.zarr"
        write_tissue_slide(slide, height=9216, width=12288, seed=1)
        tile_slides([slide], store, progress=Silent())
    shown = [store] if options.prediction is None else [store, options.prediction]
    command = [sys.executable, "-m", "wsi_seg", "view", *shown, "--read-only", "--port", "0"]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        try:
            return load(address, options, psutil.Process(server.pid))
        finally:
            server.terminate()


def load(address: str, options: argparse.Namespace, server: psutil.Process) -> dict[str, object]:
    host = urlsplit(address).netloc
    names = ask(host, "/slides")["slides"]
    slides = [ask(host, f"/slides/{quote(name)}") for name in names]
    largest = max(slides, key=lambda slide: slide["height"] * slide["width"])
    slide = next((one for one in slides if one["name"] == options.slide), largest)
    figures: dict[str, object] = {
        "slide": f"{slide['name']}, {slide['width']} x {slide['height']} px"
    }
    picture = first_picture(f"{address}#slide={quote(slide['name'])}")
    if picture is not None:
        figures["first picture after the page's load, s"] = round(picture, 3)
    for layer in slide["layers"]:
        if layer["kind"] == "image" or layer["kind"] == "probability":
            times = tile_times(host, slide["name"], layer, options.tiles)
            low, high = np.percentile(times, [50, 95])
            figures[f"{layer['id']} tile, {ASKERS} at once, p50 ms"] = round(low, 1)
            figures[f"{layer['id']} tile, {ASKERS} at once, p95 ms"] = round(high, 1)
    figures["server memory, MB"] = round(server.memory_info().rss / 1e6)
    return figures


def ask(host: str, path: str) -> dict:
    connection = http.client.HTTPConnection(host)
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def tile_times(host: str, name: str, layer: dict, count: int) -> list[float]:
    """Milliseconds of random tiles, all levels alike, each asker over one connection."""
    draw = random.Random(1)
    paths = []
    for _ in range(count):
        number = draw.randrange(len(layer["levels"]))
        level = layer["levels"][number]
        row = draw.randrange(-(-level["height"] // level["tileHeight"]))
        column = draw.randrange(-(-level["width"] // level["tileWidth"]))
        paths.append(f"/slides/{quote(name)}/layers/{layer['id']}/{number}/{row}/{column}")

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


def first_picture(address: str) -> float | None:
    """Seconds from the page's load event until every tile of the first view is there."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1366,900"):
        options.add_argument(argument)
    page = webdriver.Chrome(options=options, service=Service(driver))
    try:
        page.get(address)
        time.sleep(4)
        return page.execute_script(
            "const load = performance.getEntriesByType('navigation')[0].loadEventEnd;"
            "const tiles = performance.getEntriesByType('resource')"
            ".filter(one => one.name.includes('/layers/image/'));"
            "return (Math.max(...tiles.map(one => one.responseEnd)) - load) / 1000"
        )
    finally:
        page.quit()


if __name__ == "__main__":
    main()
