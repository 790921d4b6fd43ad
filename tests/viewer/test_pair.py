"""Two predictions side by side: both viewers show the same place of the same slide."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.makers.painted import write_prediction
from tests.viewer.browser import served, set_screen, started_browser
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.viewer.app import make_app, make_pair
from wsi_seg.viewer.catalog import Catalog
from wsi_seg.viewer.serve import ViewOptions

PLACES = """
return [...document.querySelectorAll("iframe")].map((frame) => {
  const viewer = frame.contentWindow.OpenSeadragon?.getViewer("viewer");
  if (!viewer?.world.getItemCount()) return [];
  const { x, y } = viewer.viewport.getCenter(true);
  return [x, y, viewer.viewport.getZoom(true), viewer.viewport.getRotation(true)];
});
"""
NAMES = """
return [...document.querySelectorAll("figcaption")].map((caption) => caption.textContent);
"""
OUTLINES = """
return [...document.querySelectorAll("iframe")].map((frame) => {
  const overlay = frame.contentDocument.getElementById("overlay");
  return Number(overlay?.dataset.outlines ?? 0);
});
"""


def test_each_has_its_own_address_and_the_second_is_not_reviewed(seen, tmp_path):
    slides = open_collection(seen.store)
    catalog = Catalog(slides, open_predictions(seen.prediction), "annotations")
    first = make_app(catalog, review=tmp_path, token="secret")
    second = make_app(Catalog(slides, None, "annotations"), review=None, token="secret")
    http = TestClient(make_pair(first, second, token="secret"), base_url="http://127.0.0.1")
    assert http.get("/").status_code == http.get("/first/slides").status_code == 403
    page = http.get("/?token=secret")
    assert "frame-ancestors 'self'" in page.headers["Content-Security-Policy"]
    assert page.text.count("<iframe") == 2
    one, other = (http.get(f"/{side}/slides").json() for side in ("first", "second"))
    assert (one["prediction"], other["prediction"]) == ("pred.zarr", None)
    assert (one["review"], other["review"]) == (True, False)
    for address in ("/static/pair.js", "/first/static/main.js", "/second/slides/painted"):
        assert http.get(address).status_code == 200


@pytest.fixture(scope="module")
def driver(seen, tmp_path_factory):
    pytest.importorskip("selenium.webdriver")
    other = tmp_path_factory.mktemp("pair") / "other.zarr"
    write_prediction(other, np.zeros_like(seen.probability))  # it finds nothing
    options = ViewOptions(other=open_predictions(other))
    shown = open_collection(seen.store), open_predictions(seen.prediction)
    with started_browser() as driver, served(*shown, options) as address:
        driver.get(f"{address}#slide=painted&x=900&y=700&zoom=0.5")
        until(driver, lambda one: all(one.execute_script(NAMES)))
        until(driver, lambda one: all(one.execute_script(PLACES)))
        yield driver


def until(driver, condition):
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 20).until(condition)


def both(driver):
    first, second = driver.execute_script(PLACES)
    return np.array(first), np.array(second)


def test_both_predictions_are_named_and_shown(driver):
    assert driver.execute_script(NAMES) == ["pred.zarr", "other.zarr"]
    first, second = both(driver)
    assert first == pytest.approx(second)
    until(driver, lambda one: all(one.execute_script(OUTLINES)))
    found, missed = driver.execute_script(OUTLINES)
    assert found > missed  # with nothing found there are only the true and the missed


@pytest.mark.parametrize("side", [0, 1])
def test_where_one_goes_the_other_goes_too(driver, side):
    from selenium.webdriver.common.action_chains import ActionChains

    before, _ = both(driver)
    frame = driver.find_elements("css selector", "iframe")[side]
    driver.switch_to.frame(frame)
    stage = driver.find_element("css selector", "#viewer")
    mouse = ActionChains(driver, duration=40).move_to_element(stage)
    mouse.click_and_hold().move_by_offset(-60, -40).release().send_keys("r+").perform()
    driver.switch_to.default_content()

    def arrived(_):
        (x, y, zoom, turn), other = both(driver)
        moved = x > before[0] and zoom > 1.4 * before[2] and turn >= before[3] + 90 - 1e-6
        return moved and np.allclose([x, y, zoom, turn], other)

    until(driver, arrived)


@pytest.mark.parametrize("size", [(1400, 900), (390, 844)])
def test_both_begin_with_all_of_the_slide(driver, size):
    set_screen(driver, *size)
    address = driver.current_url.split("#")[0]
    for _ in range(3):  # either may be ready first
        driver.get("about:blank")
        driver.get(address)

        def whole(_):
            first, second = both(driver)
            return np.allclose(first, second) and np.allclose(first[:2], (0.5, 2100 / 2700 / 2))

        until(driver, lambda one: all(one.execute_script(OUTLINES)))
        until(driver, whole)
