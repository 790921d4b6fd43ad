"""A click outlines what a promptable model finds there, in pixels of the slide."""

import json

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Polygon, box
from starlette.testclient import TestClient

from tests.makers.promptable import write_promptable
from tests.viewer.browser import served, started_browser
from wsi_seg.errors import CheckpointError
from wsi_seg.ingest.run import tile_slides
from wsi_seg.models.promptable import Promptable
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.viewer.app import make_app
from wsi_seg.viewer.catalog import Catalog
from wsi_seg.viewer.serve import ViewOptions

pytest.importorskip("onnxruntime")

ADDRESS = "http://127.0.0.1"
DARK = [(300, 200, 700, 500), (1700, 1500, 1900, 1580)]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Slide with two dark boxes, and options with a model that outlines what is dark."""
    folder = tmp_path_factory.mktemp("clicks")
    pixels = np.full((1800, 2400, 3), 255, dtype=np.uint8)
    for x, y, x_end, y_end in DARK:
        pixels[y:y_end, x:x_end] = 0
    Image.fromarray(pixels).save(folder / "two.png")
    tile_slides([folder / "two.png"], folder / "store.zarr", progress=Silent())
    options = ViewOptions(sam=write_promptable(folder / "sam"), review=folder / "review")
    return open_collection(folder / "store.zarr"), options


@pytest.fixture(scope="module")
def http(shown):
    slides, options = shown
    catalog = Catalog(slides, None, "annotations")
    app = make_app(catalog, review=None, token=None, sam=Promptable(options.sam))
    return TestClient(app, base_url=ADDRESS)


def clicked(http, **click):
    return http.post("/slides/two/click", json=click, headers={"origin": ADDRESS})


@pytest.mark.parametrize("zoom", [0.5, 1, 4])
@pytest.mark.parametrize("place", DARK)
def test_what_is_clicked_is_outlined(http, place, zoom):
    x, y, x_end, y_end = place
    (ring,) = clicked(http, x=(x + x_end) / 2, y=(y + y_end) / 2, zoom=zoom).json()["rings"]
    found, true = Polygon(ring), box(*place)
    assert found.intersection(true).area / found.union(true).area > 0.97


def test_clicks_outside_and_without_a_model_are_refused(http):
    assert http.get("/slides").json()["sam"]
    assert clicked(http, x=-1, y=5, zoom=1).status_code == 404
    assert clicked(http, x=1, y=5, zoom=0).status_code == 400
    http.app.state.cache.sam, kept = None, http.app.state.cache.sam
    assert clicked(http, x=1, y=5, zoom=1).status_code == 404
    http.app.state.cache.sam = kept


def test_a_file_that_is_no_decoder_is_refused(tmp_path):
    from wsi_seg.models.promptable import Promptable

    decoder = write_promptable(tmp_path)
    with pytest.raises(CheckpointError, match="expected the decoder"):
        Promptable(tmp_path / "sam_encoder.onnx")
    decoder.write_bytes((tmp_path / "sam_encoder.onnx").read_bytes())
    with pytest.raises(CheckpointError, match="expected image_embeddings"):
        Promptable(decoder)


def test_the_button_outlines_what_is_clicked(shown):
    slides, options = shown
    pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.wait import WebDriverWait

    x, y, x_end, y_end = DARK[0]
    place = f"x={(x + x_end) / 2}&y={(y + y_end) / 2}&zoom=0.5"
    file = options.review / "two.geojson"
    with started_browser() as driver, served(slides, None, options) as address:
        wait = WebDriverWait(driver, 20)
        driver.get(f"{address}#slide=two&{place}")
        wait.until(lambda one: one.find_element("id", "draw-class").get_property("value"))
        driver.find_element("id", "outline").click()
        stage = driver.find_element("id", "viewer")
        ActionChains(driver).move_to_element(stage).click().perform()
        wait.until(lambda one: one.find_element("id", "saved").text == "Review saved")
        assert driver.find_element("id", "overlay").get_attribute("data-drawings") == "1"
    (drawing,) = json.loads(file.read_text())["wsi_seg_review"]["drawings"]
    found = Polygon(drawing["rings"][0])
    true = box(*DARK[0])
    assert found.intersection(true).area / found.union(true).area > 0.97
