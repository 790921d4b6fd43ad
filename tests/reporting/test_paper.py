"""The report in a real browser: on a phone, and on paper."""

import base64
import re

import pytest

from tests.makers.painted import paint_prediction
from tests.viewer.browser import set_screen, started_browser
from wsi_seg.reporting.write import ReportSources, report

MM_PX = 96 / 25.4

# What sticks out of the page to the right, by more than what is rounded.
WIDER = """
return [...document.querySelectorAll("body *")].filter((one) => !one.closest("pre, svg, script"))
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((one) => one.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def driver():
    with started_browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    seen, out = paint_prediction(folder), folder / "report.html"
    report(ReportSources(seen.prediction, slides=seen.store), out)
    return out.as_uri()


@pytest.mark.parametrize("width", [390, 768, 1400])
def test_nothing_is_wider_than_the_screen(driver, address, width):
    set_screen(driver, width, 844)
    driver.get(address)
    assert driver.execute_script(WIDER) == []
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_it_fits_sheets_of_a4(driver, address):
    set_screen(driver, int(180 * MM_PX), 1000)  # between margins of 15 mm
    driver.get(address)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert driver.execute_script(WIDER) == []
        assert (
            driver.execute_script("return getComputedStyle(document.querySelector('nav')).display")
            == "none"
        )
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    options = {"preferCSSPageSize": True, "printBackground": True}
    printed = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", options)["data"])
    sheets = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert sheets
    for width, height in sheets:
        assert (float(width), float(height)) == pytest.approx((595.3, 841.9), abs=1.5)
