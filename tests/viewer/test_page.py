"""The page in a real browser: Debian's chromium and its driver, skipped where there is none.

Pictures of the page are kept under ``screenshots/`` of the checkout.
"""

import itertools
import json
from pathlib import Path

import pytest

from tests.viewer.browser import served, set_screen, started_browser
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.viewer.serve import ViewOptions

pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"


@pytest.fixture(scope="module")
def driver():
    with started_browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def address(seen, tmp_path_factory):
    review = tmp_path_factory.mktemp("page") / "review"
    slides, predictions = open_collection(seen.store), open_predictions(seen.prediction)
    with served(slides, predictions, ViewOptions(review=review)) as address:
        yield address, review


class Page:
    """What a person does with the page."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def open(self, hash_=""):
        self.driver.get("about:blank")
        self.driver.get(self.address + hash_)
        self.until(self.outlines, "outlines")

    def until(self, condition, what):
        WebDriverWait(self.driver, 10).until(lambda _: condition(), f"no {what}")

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def outlines(self):
        return int(self.one("#overlay").get_attribute("data-outlines") or 0)

    def drawings(self):
        return int(self.one("#overlay").get_attribute("data-drawings") or 0)

    def place(self):
        text = self.driver.execute_script("return location.hash.slice(1)")
        return dict(part.split("=") for part in text.split("&")) if text else {}

    def colour(self, x, y):
        """Colour of the picture in the middle of the stage, moved by x and y."""
        return self.driver.execute_script(
            "const c=document.querySelector('#viewer canvas'), d=c.getContext('2d');"
            "const s=c.width/c.clientWidth;"
            "return [...d.getImageData((c.clientWidth/2+arguments[0])*s,"
            "(c.clientHeight/2+arguments[1])*s,1,1).data]",
            x,
            y,
        )

    def colour_turns(self, was, x=0, y=0):
        self.until(lambda: self.colour(x, y) != was, "other colour")
        return self.colour(x, y)

    def drag(self, *steps):
        stage = self.one("#viewer")
        mouse = ActionChains(self.driver, duration=40)
        mouse.move_to_element_with_offset(stage, *steps[0]).click_and_hold()
        for (x, y), (x_next, y_next) in itertools.pairwise(steps):
            mouse.move_by_offset(x_next - x, y_next - y)
        mouse.release().perform()

    def key(self, keys):
        ActionChains(self.driver).send_keys(keys).perform()

    def shot(self, name):
        SCREENSHOTS.mkdir(exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


@pytest.fixture
def page(driver, address):
    """Page with all of the slide in view; ends with what every page must keep to."""
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    opened = Page(driver, address[0])
    yield opened
    faults = [
        entry
        for entry in driver.get_log("browser")
        if entry["level"] != "INFO" and "getImageData" not in entry["message"]  # our colour()
    ]
    assert not faults, faults
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    elsewhere = [
        url for url in asked if not url.startswith((address[0], "data:", "blob:", "about:"))
    ]
    assert not elsewhere, elsewhere


CORNER = "#slide=painted&x=30&y=24&zoom=4"  # the object that is found and not true


def test_zoom_and_pan(page):
    page.open()
    page.shot("whole")
    before = page.one("#scale span").text
    page.key("+++")
    page.until(lambda: page.one("#scale span").text != before, "other scale")
    page.until(lambda: "zoom" in page.place(), "link")
    place = page.place()
    page.drag((0, 0), (-150, -60))
    page.until(lambda: float(page.place()["x"]) > float(place["x"]) + 50, "other place")


def test_lengths_and_areas_are_measured(page):
    page.open("#slide=painted&x=900&y=700&zoom=1")
    assert page.one("#magnification").text == "20× · 0.5 µm per pixel"
    page.key("m")
    page.drag((-100, 0), (100, 0))
    page.key("a")
    page.drag((0, 0), (100, 0), (100, 100), (0, 100))
    measures = page.one("#overlay").get_attribute("data-measures")
    assert measures == "100 µm; 2,500 µm², perimeter 200 µm"
    page.key(Keys.ESCAPE)
    assert page.one("#overlay").get_attribute("data-measures") == ""


def test_turns_and_places_that_are_typed(page):
    page.open("#slide=painted&x=900&y=700&zoom=1")
    page.key("r")
    page.until(lambda: page.place().get("r") == "90", "a quarter turn")
    page.key("g")
    page.one("#place").send_keys("600, 400 um", Keys.ENTER)
    page.until(lambda: page.place()["x"].startswith("1200"), "the place")
    assert page.place()["y"].startswith("800")


def test_fingers_zoom_and_draw(page):
    page.open("#slide=painted&x=900&y=700&zoom=1")
    middle = page.driver.execute_script(
        "const b=document.getElementById('viewer').getBoundingClientRect();"
        "return [b.x+b.width/2, b.y+b.height/2]"
    )

    def touch(kind, *offsets):
        points = [{"x": middle[0] + x, "y": middle[1], "id": n} for n, x in enumerate(offsets)]
        page.driver.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points}
        )

    touch("Start", -60, 60)
    for apart in range(70, 190, 20):
        touch("Move", -apart, apart)
    touch("End")
    page.until(lambda: float(page.place()["zoom"]) > 1.5, "larger picture")
    page.key("m")
    touch("Start", -50)
    touch("Move", 0)
    touch("Move", 50)
    touch("End")
    page.until(lambda: page.one("#overlay").get_attribute("data-measures"), "a length")


def test_layers_and_threshold_change_the_picture(page):
    page.open(CORNER)
    bare = page.colour(0, 0)
    page.one("[data-layer='errors-0.errors'] input").click()
    extra = page.colour_turns(bare)
    assert extra[2] > extra[0] + 60  # blue over the slide
    page.shot("errors")
    slider = page.one("#threshold")
    page.driver.execute_script(
        "arguments[0].value=0.7; arguments[0].dispatchEvent(new Event('input'))", slider
    )
    assert page.colour_turns(extra) == bare  # 140 / 255 is no longer above
    page.one("[data-layer='errors-0.errors'] input").click()
    page.one("[data-layer='uncertainty-0'], [data-layer='probability-0.uncertainty'] input").click()
    page.colour_turns(bare)
    page.shot("uncertainty")


def test_a_link_opens_the_same_place_and_layers(page):
    page.open(CORNER + "&t=0.30&on=image.image~1,found-prediction.classes~0.25")
    assert page.one("#threshold-value").text == "0.30"
    checked = page.all("#layers input[type=checkbox]:checked")
    rows = [one.find_element(By.XPATH, "../..").get_attribute("data-layer") for one in checked]
    assert rows == ["image.image", "found-prediction.classes"]
    page.key("+")
    page.until(lambda: page.place().get("zoom") == "6.000", "link")
    link = page.driver.current_url
    page.driver.get("about:blank")
    page.driver.get(link)
    page.until(page.outlines, "outlines")
    page.key("t")
    page.key("t")
    assert page.driver.current_url == link


def test_values_under_the_cursor(page):
    page.open(CORNER)
    ActionChains(page.driver).move_to_element_with_offset(page.one("#viewer"), 0, 0).perform()
    page.until(lambda: "gland 0.55" in page.one("#readout").text, "probability")
    assert page.one("#readout").text.startswith(("x 30, y 23 px · 15.0", "x 30, y 24 px · 15.0"))
    assert "gland, false" in page.one("#hover").text


def test_objects_are_chosen_in_the_picture_and_in_the_list(page):
    page.open(CORNER)
    ActionChains(page.driver).move_to_element_with_offset(
        page.one("#viewer"), 0, 0
    ).click().perform()
    page.until(lambda: "· 0 % true" in page.one("#chosen").text, "chosen object")
    page.shot("chosen")
    (row,) = page.all("#objects li[aria-selected=true]")
    assert row.get_attribute("title").startswith("gland, false")
    page.all("#objects li")[3].click()
    page.until(lambda: "· 0 % true" not in page.one("#chosen").text, "another object")
    page.until(lambda: page.place().get("x") not in (None, "30"), "flight")


def test_objects_that_the_list_has_no_room_for_are_outlined(driver, address, seen, monkeypatch):
    page = Page(driver, address[0])
    page.open()
    everything = page.outlines()
    for module in ("evaluation.review_objects", "viewer.slide_cache"):
        monkeypatch.setattr(f"wsi_seg.{module}.MAX_OBJECTS", 3)
    shown = open_collection(seen.store), open_predictions(seen.prediction)
    with served(*shown, ViewOptions()) as page.address:
        page.open()
        assert len(page.all("#objects li")) == 3
        page.until(lambda: page.outlines() == everything, "other outlines")


def test_a_review_is_drawn_saved_and_found_again(page, address):
    page.open(CORNER)
    ActionChains(page.driver).move_to_element_with_offset(
        page.one("#viewer"), 0, 0
    ).click().perform()
    page.until(lambda: page.one("#mark-wrong").is_enabled(), "chosen object")
    page.key("2")
    page.one("#draw").click()
    page.drag((150, 100), (300, 100), (300, 250), (150, 250))
    page.one("#draw").click()
    page.until(lambda: page.one("#saved").text == "Review saved", "review")
    page.shot("review")
    page.open(CORNER)
    page.until(lambda: page.drawings() == 1, "drawing")
    (wrong,) = page.all("#objects li:has(.verdict.wrong)")
    assert wrong.get_attribute("title").startswith("gland, false")
    kept = json.loads((address[1] / "painted.geojson").read_text())["wsi_seg_review"]
    (ring,) = [drawing["rings"][0] for drawing in kept["drawings"]]
    x, y = [point[0] for point in ring], [point[1] for point in ring]
    # The middle of the stage is (30, 24), four screen pixels are one pixel of the slide.
    assert min(x) == pytest.approx(67.5, abs=1)
    assert max(x) == pytest.approx(105, abs=1)
    assert min(y) == pytest.approx(49, abs=1)
    assert max(y) == pytest.approx(86.5, abs=1)
    ActionChains(page.driver).move_to_element_with_offset(
        page.one("#viewer"), 200, 150
    ).click().perform()
    page.until(lambda: page.one("#remove").is_enabled(), "chosen drawing")
    page.one("#remove").click()
    page.until(lambda: page.drawings() == 0, "erasing")
    page.until(lambda: page.one("#saved").text == "Review saved", "review")


def test_shapes_are_split_erased_undone_and_redone(page, address):
    page.open(CORNER)
    before = page.drawings()
    page.key("d")
    page.drag((100, 100), (300, 100), (300, 250), (100, 250))
    page.until(lambda: page.drawings() == before + 1, "drawing")
    page.key("dx")
    page.drag((200, 50), (200, 150), (200, 280))
    page.until(lambda: page.drawings() == before + 2, "two halves")
    page.key("xe")
    page.drag((150, 160), (180, 160), (180, 200), (150, 200))
    page.key("e")

    def kept():
        file = address[1] / "painted.geojson"
        return json.loads(file.read_text())["wsi_seg_review"]["drawings"] if file.exists() else []

    page.until(lambda: any(len(one["rings"]) == 2 for one in kept()), "hole")
    page.key("zz")
    page.until(lambda: page.drawings() == before + 1, "undone split")
    page.key("y")
    page.until(lambda: page.drawings() == before + 2, "split again")
    page.key("zz")
    page.until(lambda: page.drawings() == before, "nothing")
    page.until(lambda: page.one("#saved").text == "Review saved", "review")
    assert len(kept()) == before


def test_an_object_that_is_erased_from_becomes_a_shape(page, address):
    page.open(CORNER)
    ActionChains(page.driver).move_to_element_with_offset(
        page.one("#viewer"), 0, 0
    ).click().perform()
    page.until(lambda: page.one("#mark-wrong").is_enabled(), "chosen object")
    page.key("e")
    page.drag((0, 0), (40, 0), (40, 40), (0, 40))
    page.until(lambda: page.drawings() == 1, "shape")
    page.key("e")
    page.until(lambda: page.one("#saved").text == "Review saved", "review")
    page.shot("erased")
    kept = json.loads((address[1] / "painted.geojson").read_text())["wsi_seg_review"]
    assert list(kept["verdicts"].values()) == ["wrong"]
    page.key("z")
    page.until(lambda: page.drawings() == 0, "undone")
    page.until(lambda: page.one("#saved").text == "Review saved", "review")


def test_the_second_of_two_pages_learns_of_the_first(page, address):
    page.open(CORNER)
    file = address[1] / "painted.geojson"
    page.until(lambda: page.one("#reviewed").text, "review")
    file.parent.mkdir(exist_ok=True)
    theirs = json.loads(file.read_text()) if file.exists() else {"features": []}
    theirs.setdefault("wsi_seg_review", {"verdicts": {}, "drawings": []})
    file.write_text(json.dumps(theirs, indent=1))  # somebody else saved
    page.key("n1")
    page.until(lambda: "somebody else saved" in page.one("#message").text, "sentence")
    assert page.one("#saved").text == "Not saved"
    assert file.read_text() == json.dumps(theirs, indent=1)
    page.driver.get_log("browser")  # the refusal is logged there


def test_the_queue_goes_from_place_to_place(page):
    page.open()
    page.until(lambda: page.all("#queue li"), "places")
    page.until(lambda: "x" in page.place(), "link")
    before = page.place()
    page.key("q")
    page.until(lambda: page.place().get("x") != before["x"], "flight")
    assert page.one("#queue li[aria-selected=true]").text == "1"


def test_a_bookmark_is_kept_and_leads_back(page):
    page.open(CORNER)
    page.key("b")
    page.open()
    (go, forget) = page.all("#bookmarks button")
    assert go.text == "30, 24"
    page.driver.execute_script("arguments[0].click()", go)
    page.until(lambda: page.place().get("zoom") == "4.000", "the place")
    page.driver.execute_script("arguments[0].click()", forget)
    assert not page.all("#bookmarks button")


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (820, 1180), (390, 844)])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_screens_and_themes(page, width, height, theme):
    set_screen(page.driver, width, height)
    try:
        page.open()
        if page.driver.execute_script("return document.documentElement.dataset.theme") != theme:
            page.key("t")
        if width < 1000:
            page.one("#show-panel").click()
        page.one("[data-layer='probability-0.probability'] input").click()
        page.until(lambda: page.one("#key").text, "key")
        page.shot(f"{theme}-{width}")
        assert page.driver.execute_script(
            "return document.documentElement.scrollWidth <= innerWidth"
        )
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
