"""Screenshots of all pages: light and dark theme, on a large screen and on a phone.

The pages are the viewer, a review, two predictions side by side, a report, a preview, and the page
of a model. ``python benchmarks/screenshots.py [FOLDER]``, by default ``screenshots/``, which git
ignores. Requires chromium, chromedriver and markdown. All slides are synthetic.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench_view import browser

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"large": (1400, 900), "phone": (390, 844)}
THEMES = ("light", "dark")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "screenshots"
    folder.mkdir(exist_ok=True)
    sys.path.insert(0, str(ROOT))
    from tests.makers.painted import paint_prediction, write_prediction

    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        seen = paint_prediction(made)
        other = made / "other.zarr"
        write_prediction(other, 255 - seen.probability)
        report, sheet = made / "report.html", made / "sheet.png"
        run("report", seen.prediction, "--slides", seen.store, "--out", report)
        (made / "recipe.yaml").write_text(
            "classes: [{name: gland}]\ndata: {stores: [store.zarr]}\nmpp: null\npatch_px: 128\n"
        )
        run("preview", made / "recipe.yaml", "--out", sheet)
        pages = {"report": report, "preview": sheet, "model": write_model_page(made)}
        shown = [seen.store, seen.prediction, "--review", made / "review"]
        with viewer(*shown) as address, viewer(*shown[:2], "--other", other) as pair:
            shoot(address, pair, pages, folder)


def run(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "wsi_seg", *map(str, words)], check=True)


@contextmanager
def viewer(*words: object) -> Iterator[str]:
    """Run a viewer, and yield its URL."""
    command = [sys.executable, "-m", "wsi_seg", "view", *map(str, words), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def write_model_page(folder: Path) -> Path:
    """Convert the page of a model from Markdown to HTML, and return the file."""
    from markdown import markdown

    from tests.cards import make_card
    from wsi_seg.reporting.model_page import model_page

    lines = [f"{epoch},{0.9 / epoch},0.1,{1 - 0.5 / epoch}" for epoch in range(1, 11)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,loss,lr,val_dice", *lines]) + "\n")
    card = make_card("gland", encoder="tu-resnet10t", scores={"val_dice": 0.95})
    parts = model_page(folder / "best.safetensors", card, licence="MIT")
    for path, data in parts.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    text = parts["README.md"].decode().split("---", 2)[2]
    page = folder / "model.html"
    body = markdown(text, extensions=["tables", "fenced_code"])
    look = "<style>:root{color-scheme:light dark}body{font:16px sans-serif;margin:16px}"
    look += "img{max-width:100%;background:#fff}pre{overflow-x:auto}</style>"
    size = "<meta name=viewport content='width=device-width'><meta charset=utf-8>"
    page.write_text(f"<!doctype html>{size}{look}{body}")
    return page


def shoot(viewer: str, pair: str, pages: dict[str, Path], folder: Path) -> None:
    """Take all screenshots."""
    with browser() as page:
        for size, (width, height) in SIZES.items():
            for theme in THEMES:
                about = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", about)
                wanted = [{"name": "prefers-color-scheme", "value": theme}]
                page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})

                def keep(name: str, end: str = f"{theme}-{size}") -> None:
                    time.sleep(2)
                    page.save_screenshot(str(folder / f"{name}-{end}.png"))

                page.get(viewer)
                page.execute_script("localStorage.clear()")
                page.get("about:blank")
                page.get(viewer)
                keep("viewer")
                key = "document.body.dispatchEvent("
                key += "new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
                if size == "phone":
                    page.execute_script(key, "l")
                for pressed in "nb":
                    page.execute_script(key, pressed)
                time.sleep(1)
                page.execute_script(key, "f")
                keep("review")
                page.execute_script(key, "z")
                page.execute_script(key, "?")
                keep("keys")
                page.get(pair)
                keep("pair")
                for name, file in pages.items():
                    page.get(file.as_uri())
                    keep(name)


if __name__ == "__main__":
    main()
