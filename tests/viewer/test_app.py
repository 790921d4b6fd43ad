import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import imagecodecs
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError, StoreError, StoreNotFoundError
from wsi_seg.geometry import Region
from wsi_seg.reading.resample import read_label
from wsi_seg.store import create_collection, open_collection, open_predictions
from wsi_seg.viewer.app import make_app
from wsi_seg.viewer.auth import LOOPBACK
from wsi_seg.viewer.catalog import Catalog
from wsi_seg.viewer.serve import ViewOptions, serve

ADDRESS = "http://127.0.0.1"


def client(seen, *, review=None, token=None, base=ADDRESS, predicted=True):
    predictions = open_predictions(seen.prediction) if predicted else None
    catalog = Catalog(open_collection(seen.store), predictions, "annotations")
    return TestClient(make_app(catalog, review=review, token=token), base_url=base)


def pixels(response):
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as image:
        return np.asarray(image)


def assembled(http, layer):
    """All tiles of a layer's finest level, put together."""
    about = next(one for one in http.get("/slides/painted").json()["layers"] if one["id"] == layer)
    level = about["levels"][0]
    rows = -(-level["height"] // level["tileHeight"])
    columns = -(-level["width"] // level["tileWidth"])
    grid = [
        [
            pixels(http.get(f"/slides/painted/layers/{layer}/0/{row}/{column}"))
            for column in range(columns)
        ]
        for row in range(rows)
    ]
    whole = np.concatenate([np.concatenate(row, axis=1) for row in grid], axis=0)
    return whole[: level["height"], : level["width"]]


def test_slide_tiles_are_the_store_s_own_streams_and_pixels(seen):
    http = client(seen)
    (store,) = open_collection(seen.store)
    extent = store.pyramid.extent
    region = Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    assert np.array_equal(assembled(http, "image"), store.image.read(region))
    stream = http.get("/slides/painted/layers/image/0/0/0").content
    shard = store.image.arrays[0].shard_path(0, 0).read_bytes()
    assert stream in shard


def test_values_arrive_unchanged(seen):
    http = client(seen)
    assert np.array_equal(assembled(http, "probability-0"), seen.probability)
    (store,) = open_collection(seen.store)
    label = store.label("annotations")
    extent = label.pyramid.extent
    whole = Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    assert np.array_equal(assembled(http, "label-annotations"), label.read(whole))


def test_errors_carry_probability_and_truth(seen):
    found = assembled(client(seen), "errors-0")
    assert np.array_equal(found[:, :, 0], seen.probability)
    (store,) = open_collection(seen.store)
    (prediction,) = open_predictions(seen.prediction)
    size = prediction.pyramid.extent
    truth = read_label(store.label("annotations"), size, 0, 0, height=size.height, width=size.width)
    assert np.array_equal(found[:, :, 1], np.where(truth == 1, 255, 0))


def test_errors_of_a_class_that_merges_others(seen, tmp_path):
    shutil.copytree(seen.prediction, tmp_path / "pred.zarr")
    merged = ClassTable.named(["structure"], merged=[["gland", "vessel"]])
    group = tmp_path / "pred.zarr/painted/zarr.json"
    about = json.loads(group.read_text())
    about["attributes"]["wsi_seg"]["classes"] = merged.to_json()
    group.write_text(json.dumps(about))
    catalog = Catalog(
        open_collection(seen.store), open_predictions(tmp_path / "pred.zarr"), "annotations"
    )
    http = TestClient(make_app(catalog, review=None, token=None), base_url=ADDRESS)
    assert np.array_equal(assembled(http, "errors-0"), assembled(client(seen), "errors-0"))


def test_values_under_the_cursor(seen):
    http = client(seen)
    values = http.get("/slides/painted/values?x=20&y=20").json()
    assert values["probability-0"] == 140
    assert values["label-annotations"] == 0
    for place in ("x=-1&y=0", "x=0&y=99999", "x=nan&y=0", "x=0", "x=a&y=b"):
        assert http.get(f"/slides/painted/values?{place}").status_code == 404


def test_objects_have_the_figures_of_their_pixels(seen):
    objects = client(seen).get("/slides/painted/objects").json()
    (wrong,) = [one for one in objects if one["overlap"] == 0]
    assert wrong["box"] == [0, 0, 60, 48]
    assert wrong["area"] == pytest.approx(60 * 48 * 0.25)
    assert wrong["probability"] == pytest.approx(140 / 255)
    assert wrong["error_mass"] == pytest.approx(140 / 255 * 60 * 48 * 0.25)
    right = [one for one in objects if one["overlap"] == 1]
    assert right
    assert all(one["probability"] == pytest.approx(200 / 255) for one in right)


def test_missed_objects_are_listed(seen, tmp_path):
    shutil.copytree(seen.prediction, tmp_path / "pred.zarr")
    shutil.rmtree(tmp_path / "pred.zarr/painted/0/c")
    for level in (tmp_path / "pred.zarr/painted/labels/prediction").glob("[0-9]"):
        shutil.rmtree(level / "c")
    http = client(type("S", (), {"store": seen.store, "prediction": tmp_path / "pred.zarr"}))
    kinds = {one["kind"] for one in http.get("/slides/painted/objects").json()}
    assert kinds == {"missed"}


def test_without_a_prediction_the_truth_is_listed(seen):
    objects = client(seen, predicted=False).get("/slides/painted/objects").json()
    assert {one["kind"] for one in objects} == {"true"}
    assert all(one["probability"] is None for one in objects)


def test_outlines_of_a_window(seen):
    http = client(seen)
    found = http.get("/slides/painted/outlines?x=0&y=0&x_end=70&y_end=60&tolerance=0.5").json()
    objects = http.get("/slides/painted/objects").json()
    assert found["left_out"] == 0
    (corner,) = [one for one in found["outlines"] if objects[one["id"]]["overlap"] == 0]
    assert corner["status"] == "false"
    ring = [(0, 0), (60, 0), (60, 48), (0, 48)]
    assert {tuple(point) for point in corner["rings"][0]} == set(ring)
    for query in ("x=0&y=0&x_end=0&y_end=9&tolerance=1", "x=0&y=0&x_end=inf&y_end=9&tolerance=1"):
        assert http.get(f"/slides/painted/outlines?{query}").status_code == 404


def test_objects_that_the_list_has_no_room_for_are_outlined(seen, monkeypatch):
    region = "x=0&y=0&x_end=2700&y_end=2100&tolerance=0.5"
    every = client(seen).get(f"/slides/painted/outlines?{region}").json()["outlines"]
    for module in ("evaluation.review_objects", "viewer.slide_cache"):
        monkeypatch.setattr(f"wsi_seg.{module}.MAX_OBJECTS", 3)
    http = client(seen)
    assert len(http.get("/slides/painted/objects").json()) == 3
    found = http.get(f"/slides/painted/outlines?{region}").json()
    assert not found["left_out"]
    ids = [one["id"] for one in found["outlines"]]
    assert sorted(ids, key=str) == [0, 1, 2] + [None] * (len(every) - 3)

    def drawn(outlines):
        shapes = [shapely.Polygon(one["rings"][0], one["rings"][1:]) for one in outlines]
        kinds = [one["status"] for one in outlines]
        return sorted(zip(kinds, shapely.to_wkt(shapely.normalize(shapes)), strict=True))

    assert drawn(found["outlines"]) == drawn(every)
    true = http.get(f"/slides/painted/outlines?of=truth&{region}").json()["outlines"]
    assert len(true) == sum(one["status"] == "found" for one in every)


def test_tiles_do_not_wait_for_other_requests(seen):
    http = client(seen)
    with http, ThreadPoolExecutor(50) as askers:
        opened = http.app.state.cache.opened("painted")
        with opened.lock:  # the objects are being traced
            waiting = [askers.submit(http.get, "/slides/painted/objects") for _ in range(45)]
            assert http.get("/slides/painted/layers/image/0/0/0").status_code == 200
        assert {one.result().status_code for one in waiting} == {200}


def test_true_outlines_are_there_to_compare_with(seen):
    http = client(seen)
    region = "x=0&y=0&x_end=2700&y_end=2100&tolerance=0.5"
    true = http.get(f"/slides/painted/outlines?of=truth&{region}").json()["outlines"]
    objects = http.get("/slides/painted/objects").json()
    assert {one["status"] for one in true} == {"true"}
    assert len(true) == sum(one["status"] == "found" for one in objects)  # all but one are right


def test_density_is_the_share_of_found_false_and_missed(seen):
    shares = assembled(client(seen), "coverage")
    found = seen.probability > 127
    mistake = np.zeros_like(found)
    mistake[:12, :15] = True
    assert np.array_equal(shares[:, :, 1] == 255, mistake)
    # The truth is finer than the prediction: at its borders shares are between 0 and 1.
    inside = found & ~mistake
    assert (shares[inside, 0] > 0).mean() > 0.99
    assert shares[~found][:, :2].max() == 0
    alone = assembled(client(seen, predicted=False), "coverage")
    assert alone.shape[:2] == (2100, 2700)
    assert alone[:, :, 1:].max() == 0
    (store,) = open_collection(seen.store)
    whole = Region(level=0, y=0, x=0, height=2100, width=2700)
    assert np.array_equal(alone[:, :, 0] == 255, store.label("annotations").read(whole) == 1)


def test_what_to_know_before_a_prediction_is_trusted(seen, tmp_path):
    assert client(seen).get("/slides/painted").json()["warnings"] == []
    shutil.copytree(seen.prediction, tmp_path / "pred.zarr")
    group = tmp_path / "pred.zarr/painted/zarr.json"
    about = json.loads(group.read_text())
    ours = about["attributes"]["wsi_seg"]
    ours |= {"notes": ["read at level 0"], "training": {"learned_from_slide": True}}
    ours["mpp"] = 1.0  # the slide says 0.5
    group.write_text(json.dumps(about))
    http = client(type("S", (), {"store": seen.store, "prediction": tmp_path / "pred.zarr"}))
    noted, learned, width = http.get("/slides/painted").json()["warnings"]
    assert noted == "painted: read at level 0"
    assert "was trained on this slide" in learned
    assert "1,350 µm wide" in width
    assert "2,700 µm wide" in width


@pytest.mark.parametrize(
    "path",
    [
        "/slides/..%2f..%2fetc%2fpasswd",
        "/slides/%2e%2e",
        "/slides/.partial",
        "/slides/painted%00",
        "/slides/painted/layers/..%2f..%2fimage/0/0/0",
        "/slides/painted/layers/none/0/0/0",
        "/slides/painted/layers/image/99/0/0",
        "/slides/painted/layers/image/-1/0/0",
        "/slides/painted/layers/image/0/999999999999/0",
        "/slides/painted/layers/image/zero/0/0",
        "/slides/painted/review",
        "/static/..%2fapp.py",
        "/static/../../app.py",
        "/nothing",
    ],
)
def test_requests_outside_what_there_is_are_refused(seen, path):
    http = client(seen)
    answer = http.get(path)
    assert answer.status_code == 404
    assert b'"""Owns' not in answer.content
    assert http.get("/slides/painted").status_code == 200


def test_a_store_that_is_deleted_or_damaged_is_reported_and_survived(seen, tmp_path, caplog):
    shutil.copytree(seen.store, tmp_path / "store.zarr")
    http = client(type("S", (), {"store": tmp_path / "store.zarr", "prediction": seen.prediction}))
    tile = "/slides/painted/layers/image/0/0/0"
    assert http.get(tile).status_code == 200
    shard = next((tmp_path / "store.zarr/painted/1/c").rglob("0"))
    for file in [one for one in shard.parent.rglob("*") if one.is_file()]:
        file.write_bytes(b"damaged")
    assert http.get("/slides/painted/layers/image/1/0/0").status_code == 422
    shutil.rmtree(tmp_path / "store.zarr")
    for path in (tile, "/slides", "/slides/painted", "/slides/painted/thumbnail"):
        answer = http.get(path)
        assert answer.status_code == 404
        assert "gone" in answer.json()["error"]
    assert "404 /slides" in caplog.text
    assert http.get("/").status_code == 200


def test_only_loopback_names_are_answered_without_a_token(seen):
    http = client(seen)
    assert http.get("/slides", headers={"host": "evil.example"}).status_code == 403
    assert http.get("/slides", headers={"host": "localhost:9"}).status_code == 200
    answer = http.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers


def test_other_hosts_need_the_token(seen):
    http = client(seen, token="secret", base="http://10.0.0.5")
    assert http.get("/slides").status_code == 403
    assert http.get("/slides?token=wrong").status_code == 403
    assert http.get("/static/main.js").status_code == 403
    entry = http.get("/?token=secret", follow_redirects=False)
    assert entry.status_code == 303
    assert "secret" not in entry.headers["location"]
    assert http.get("/slides").status_code == 200


REVIEW: dict[str, Any] = {
    "verdicts": {},
    "drawings": [{"class_name": "gland", "rings": [[[1, 1], [90, 5], [40, 80]]]}],
}


def put(http, body, **headers):
    headers = {"origin": ADDRESS, "if-match": '"new"'} | headers
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.put("/slides/painted/review", content=content, headers=headers)


def test_a_review_is_kept_and_found_again(seen, tmp_path):
    http = client(seen, review=tmp_path / "review")
    assert http.get("/slides/painted/review").json() == {"verdicts": {}, "drawings": []}
    review = REVIEW | {"verdicts": {"0": "wrong", "1": "unsure"}}
    assert put(http, review).status_code == 200
    fresh = client(seen, review=tmp_path / "review")
    assert fresh.get("/slides/painted/review").json() == review


def test_reviews_are_written_by_our_page_only_and_checked(seen, tmp_path):
    http = client(seen, review=tmp_path / "review")
    assert put(http, REVIEW, origin="http://evil.example").status_code == 403
    assert http.put("/slides/painted/review", content=b"{}").status_code == 403
    ring = {"class_name": "gland", "rings": [[[0, 0], [1, 1], [2, 2]]]}
    for body in (
        b"{",
        b"[" * 100_000,
        {"verdicts": {"0": "maybe"}},
        {"verdicts": {"99999": "right"}},
        {"drawings": [ring]},
        {"drawings": [{"class_name": "", "rings": REVIEW["drawings"][0]["rings"]}]},
        {"path": "/etc/passwd"},
    ):
        assert put(http, body).status_code == 400
    assert put(http, b" " * (9 * 2**20)).status_code == 413
    assert not (tmp_path / "review").exists()
    (tmp_path / "review").mkdir()
    (tmp_path / "review/painted.geojson").write_text("{}")
    assert http.get("/slides/painted/review").status_code == 400


def test_the_second_of_two_people_overwrites_nothing(seen, tmp_path):
    one, other = (client(seen, review=tmp_path / "review") for _ in range(2))
    versions = [http.get("/slides/painted/review").headers["etag"] for http in (one, other)]
    first = put(one, REVIEW, **{"if-match": versions[0]})
    assert first.status_code == 200
    before = (tmp_path / "review/painted.geojson").read_bytes()
    late = put(other, {"verdicts": {"0": "right"}}, **{"if-match": versions[1]})
    assert late.status_code == 412
    assert "somebody else saved a review of painted" in late.json()["error"]
    assert (tmp_path / "review/painted.geojson").read_bytes() == before
    again = put(one, {"verdicts": {"0": "right"}}, **{"if-match": first.headers["etag"]})
    assert again.status_code == 200
    assert put(one, REVIEW, **{"if-match": ""}).status_code == 400


def test_shapes_are_edited_on_the_server(seen, tmp_path):
    http = client(seen, review=tmp_path / "review")
    ring = [[0, 0], [90, 0], [90, 90], [0, 90]]
    edit = {"operation": "split", "shapes": [[ring]], "stroke": [[45, -5], [45, 95]]}
    halves = http.post("/shapes", json=edit, headers={"origin": ADDRESS}).json()["shapes"]
    assert len(halves[0]) == 2
    wrong: list[object] = [edit | {"operation": "melt"}, {"shapes": [[[[0, 0]]]]}, []]
    for body in wrong:
        assert http.post("/shapes", json=body, headers={"origin": ADDRESS}).status_code == 400
    assert client(seen).post("/shapes", json=edit, headers={"origin": ADDRESS}).status_code == 404


def test_places_to_annotate_next_are_listed(seen):
    places = client(seen).get("/slides/painted/next").json()
    assert places
    assert all(place["uncertainty"] > 0 for place in places)
    assert client(seen, predicted=False).get("/slides/painted/next").json() == []


def test_nothing_is_written_where_nothing_may_be(seen):
    assert put(client(seen), REVIEW).status_code == 404


def test_what_cannot_be_shown_or_served_is_refused(seen, tmp_path, monkeypatch):
    monkeypatch.setattr("wsi_seg.viewer.serve.LIBRARY", tmp_path / "library.js")
    with pytest.raises(StoreNotFoundError, match="make viewer"):
        serve(open_collection(seen.store), None, "a", ViewOptions(), ready=print)
    (tmp_path / "library.js").touch()
    create_collection(tmp_path / "empty.zarr")
    slides = open_collection(seen.store)
    quiet = {"ready": lambda address: None}
    with pytest.raises(StoreError, match="no slides"):
        serve(open_collection(tmp_path / "empty.zarr"), None, "a", ViewOptions(), **quiet)
    empty = open_predictions(tmp_path / "empty.zarr")
    with pytest.raises(StoreError, match="same names"):
        serve(slides, empty, "a", ViewOptions(), **quiet)
    with pytest.raises(ConfigError, match="cannot listen"):
        serve(slides, None, "a", ViewOptions(host="203.0.113.7", port=1), **quiet)
    assert ViewOptions().host in LOOPBACK


def test_thumbnails_are_small_pictures(seen):
    picture = imagecodecs.jpeg8_decode(client(seen).get("/slides/painted/thumbnail").content)
    assert max(picture.shape) == 320


def test_labels_of_values_are_shown_and_damaged_ones_left_out(seen, tmp_path, caplog):
    shutil.copytree(seen.prediction, tmp_path / "pred.zarr")
    labels = tmp_path / "pred.zarr/painted/labels"
    for name in ("energy", "broken", "cut"):
        shutil.copytree(labels / "prediction", labels / name)
    for file, old, new in (
        (labels / "zarr.json", '"prediction"', '"prediction", "energy", "broken", "cut"'),
        (labels / "energy/zarr.json", '"classes"', '"others"'),
        (labels / "broken/zarr.json", "{", "["),
        (labels / "cut/0/zarr.json", "{", "["),
    ):
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
    http = client(type("S", (), {"store": seen.store, "prediction": tmp_path / "pred.zarr"}))
    kinds = {one["id"]: one["kind"] for one in http.get("/slides/painted").json()["layers"]}
    assert kinds["found-energy"] == "values"
    assert kinds["found-prediction"] == "classes"
    for name in ("broken", "cut"):
        assert f"found-{name}" not in kinds
        assert f"{name} of painted is skipped" in caplog.text


@settings(max_examples=60)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6), st.text(max_size=20))
def test_no_address_breaks_the_server(seen, parts, query):
    http = client(seen)
    for start in ("/slides", "/slides/painted", "/slides/painted/layers/image", "/static"):
        path = "/".join([start, *(quote(part, safe="") for part in parts)])
        answer = http.get(f"{path}?{quote(query, safe='=&')}")
        assert answer.status_code in (200, 400, 404, 405, 422)
