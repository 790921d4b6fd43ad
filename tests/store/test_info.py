"""What is noted about slides, predictions and labels: typed, the same after a round trip."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.classes import ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent
from wsi_seg.store import (
    LabelInfo,
    Layout,
    PredictionInfo,
    StoreInfo,
    create_multiscale,
    open_collection,
    open_multiscale,
)
from wsi_seg.store.group import FORMAT
from wsi_seg.store.info import LevelInfo, SourceInfo
from wsi_seg.store.slide_list import create_collection

GROUP = Path("a")
CLASSES = ClassTable.named(["tumour", "stroma"], merged=[["a", "b"], []])

predictions = st.builds(
    PredictionInfo,
    slide=st.none() | st.text(),
    classes=st.sampled_from([ClassTable(()), CLASSES]),
    saved=st.sampled_from(["both", "labels", "probabilities"]),
    settings=st.dictionaries(st.text(), st.integers() | st.text()),
    notes=st.lists(st.text()).map(tuple),
    tiles=st.integers(0, 9),
    quarantined=st.lists(st.tuples(st.integers(), st.integers(), st.text())).map(tuple),
    seam_score=st.none() | st.floats(0, 9),
    calibration=st.none() | st.text(),
)
slides = st.builds(
    StoreInfo,
    source=st.none() | st.builds(SourceInfo, st.text(), st.integers(0), st.text()),
    window=st.none() | st.tuples(st.floats(-9, 0), st.floats(0, 9)),
    levels=st.lists(st.builds(LevelInfo, st.text(), st.text())).map(tuple),
)
labels = st.builds(LabelInfo, classes=st.just(CLASSES), trusted=st.booleans())


@given(predictions | slides | labels)
def test_json_and_back_is_the_same(info):
    document = json.loads(json.dumps(info.to_json()))
    assert type(info).from_json({**document, "format": FORMAT, "mpp": 0.5}, GROUP) == info


@pytest.mark.parametrize(
    ("kind", "attributes", "named"),
    [
        (
            PredictionInfo,
            {"kind": "slide"},
            "a: got kind='slide'; expected 'prediction'; make it again",
        ),
        (StoreInfo, {"kind": "prediction"}, "a: got kind='prediction'; expected 'slide'"),
        (
            PredictionInfo,
            {"saved": "some"},
            "a: got saved='some'; expected 'probabilities', 'labels' or 'both'",
        ),
        (PredictionInfo, {"quarantined": [[0, 1]]}, "a: got quarantined"),
        (PredictionInfo, {"classes": [{"colour": "#000000"}]}, "a: got classes"),
        (LabelInfo, {"classes": [{"name": "x"}, {"name": "x"}]}, "a: got classes=.*each name once"),
        (LabelInfo, {"classes": "tumour"}, "a: got classes"),
        (StoreInfo, {"window": [1]}, "a: got window"),
    ],
)
def test_a_value_that_does_not_fit_is_named(kind, attributes, named):
    with pytest.raises(StoreError, match=named):
        kind.from_json(attributes, GROUP)


def test_settings_answer_what_is_asked_often():
    info = PredictionInfo(settings={"tile_px": 256, "slide_digest": "ab"})
    assert (info.tile_px, info.slide_digest, info.learned_from_slide) == (256, "ab", False)
    several = PredictionInfo(
        settings={"tile_px": [256, 512]}, training={"learned_from_slide": True}
    )
    assert (several.tile_px, several.slide_digest, several.learned_from_slide) == (None, "", True)


def _image(path, attributes, **more):
    layout = {"channels": None, "mpp": 0.5, **more}
    create_multiscale(path, Layout.of([Extent(height=30, width=40)], **layout), attributes)
    return open_multiscale(path)


def test_an_image_knows_its_classes_and_its_place_in_the_slide(tmp_path):
    image = _image(tmp_path / "a", LabelInfo(classes=CLASSES).to_json(), downsample=4.0)
    assert image.classes == CLASSES
    assert (image.downsample, image.slide_mpp, image.pyramid.mpp) == (4.0, 0.5, 2.0)


@pytest.mark.parametrize("attributes", [{}, LabelInfo().to_json()])
def test_an_image_without_classes_says_so(tmp_path, attributes):
    image = _image(tmp_path / "a", attributes, mpp=None)
    assert not image.names_classes
    assert image.slide_mpp is None
    with pytest.raises(StoreError, match="a names no classes"):
        image.classes  # noqa: B018 (a property)


@pytest.mark.parametrize("earlier", [None, FORMAT - 1, FORMAT + 1])
@pytest.mark.parametrize("group", ["", "a"])
def test_another_format_is_refused_by_a_sentence(tmp_path, earlier, group):
    create_collection(tmp_path)
    _image(tmp_path / "a", {"kind": "slide"})
    file = tmp_path / group / "zarr.json"
    document = json.loads(file.read_text())
    del document["attributes"]["wsi_seg"]["format"]
    if earlier is not None:
        document["attributes"]["wsi_seg"]["format"] = earlier
    file.write_text(json.dumps(document))
    found = "before 2" if earlier is None else earlier
    sentence = f"written in format {found}; .* reads format {FORMAT}; make it again: .*wsi-seg tile"
    with pytest.raises(StoreError, match=sentence):
        open_collection(tmp_path)["a"]
