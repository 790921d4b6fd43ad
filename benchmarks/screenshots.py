"""Pictures of the viewer, a review and a report: light and dark, on a large screen and on a phone.

``python benchmarks/screenshots.py [FOLDER]``, by default ``screenshots/``, which git ignores. Needs
chromium and chromedriver. All that is shown is painted by code.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_view import browser

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"large": (1400, 900), "phone": (390, 844)}
THEMES = ("light", "dark")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "screenshots"
    folder.mkdir(exist_ok=True)
    sys.path.insert(0, str(ROOT))
    from tests.makers.painted import paint_prediction

    with tempfile.TemporaryDirectory() as made:
        seen = paint_prediction(Path(made))
        report = Path(made) / "report.html"
        words = ["report", seen.prediction, "--slides", seen.store, "--out", report]
        subprocess.run([sys.executable, "-m", "wsi_seg", *map(str, words)], check=True)
        command = [sys.executable, "-m", "wsi_seg", "view", seen.store, seen.prediction]
        command += ["--port", "0", "--review", Path(made) / "review"]
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as server:
            try:
                shoot(server.stdout.readline().split()[-1], report.as_uri(), folder)
            finally:
                server.terminate()


def shoot(viewer: str, report: str, folder: Path) -> None:
    """Take every picture."""
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
                page.get(report)
                keep("report")


if __name__ == "__main__":
    main()
