"""The page in a real browser: Debian's chromium and its driver, and a server in this process."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from wsi_seg.store import Collection, Predictions
from wsi_seg.viewer.serve import LIBRARY, ViewOptions, prepare

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


@contextmanager
def started_browser():
    """Chromium without a window; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    service = pytest.importorskip("selenium.webdriver.chrome.service")
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs chromium and chromium-driver (Debian's packages), which are not here")
    if not LIBRARY.is_file():
        pytest.skip("needs the page's library; run `make viewer`")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1366,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=service.Service(DRIVER))
    try:
        yield found
    finally:
        found.quit()


@contextmanager
def served(
    slides: Collection, predictions: Predictions | None, options: ViewOptions
) -> Iterator[str]:
    """Address of the viewer, served from a thread."""
    app, _ = prepare(slides, predictions, "annotations", options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


def set_screen(driver, width: int, height: int, ratio: float = 1.0) -> None:
    """Give the page a window of this size, in CSS pixels, and this device pixel ratio."""
    size = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
