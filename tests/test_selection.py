"""Which slides a command works on: by a pattern of names, or by a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import run, run_json
from tests.makers.coordinates import write_coordinate_tiff
from tests.makers.painted import paint_prediction
from wsi_seg.errors import ConfigError, WsiSegError
from wsi_seg.geometry import Extent
from wsi_seg.selection import Selection
from wsi_seg.store import open_collection, open_predictions

NAMES = ("a1", "a2", "b1")


def table(folder, text, encoding="utf-8"):
    path = folder / "some.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


@given(st.lists(st.text("ab1", min_size=1, max_size=3), unique=True, min_size=1), st.data())
def test_a_pattern_takes_the_names_that_begin_so(names, data):
    begin = data.draw(st.sampled_from(names))[:1]
    assert Selection.parse(f"{begin}*").pick(names) == tuple(
        name for name in names if name.startswith(begin)
    )


def test_a_pattern_that_nothing_fits_is_refused_with_the_names():
    with pytest.raises(ConfigError, match=r"got 'c\*', which matches no slide; .* a1, a2, b1"):
        Selection.parse("c*").pick(NAMES)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("slide,mpp\nb1,0.5\na1,\n", "utf-8"),
        ("mpp;Slide;stain\n0.5;b1;HE\n;a1;HE\n\n", "utf-8-sig"),
        ("slide\tmpp\nb1\t0.5\na1\t\n", "utf-16"),
    ],
)
def test_a_table_takes_its_slides_in_the_order_of_the_collection(tmp_path, text, encoding):
    selection = Selection.parse(table(tmp_path, text, encoding))
    assert selection.pick(NAMES) == ("a1", "b1")
    assert (selection.mpp("b1"), selection.mpp("a1"), selection.mpp("a2")) == (0.5, None, None)


def test_a_table_of_one_column(tmp_path):
    assert Selection.parse(table(tmp_path, "slide\na2\n")).pick(NAMES) == ("a2",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("slide,mpp\n", "lists no slides"),
        ("name,mpp\na1,1\n", "has the columns name, mpp; expected slide"),
        ("slide,mpp\na1,1\na1,2\n", "line 3 has the slide 'a1'"),
        ("slide,mpp\n,1\n", "line 2 has the slide ''"),
        ("slide,mpp\na1,fine\n", "line 2 has mpp 'fine'; expected a number"),
        ("slide,mpp\na1,-1\n", "line 2 has mpp '-1'"),
        ("slide,mpp\na1,inf\n", "line 2 has mpp 'inf'"),
        ("slide,mpp\na1\n", "line 2 has 1 column; expected 2"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, said):
    with pytest.raises(WsiSegError, match=said):
        Selection.parse(table(tmp_path, text))


def test_slides_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match="lists unknown slides c1; expected some of a1, a2, b1"):
        Selection.parse(table(tmp_path, "slide\na1\nc1\n")).pick(NAMES)
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.csv"):
        Selection.parse(str(tmp_path / "absent.csv"))


def test_tile_takes_some_and_the_table_says_their_mpp(tmp_path):
    slides, out = tmp_path / "slides", tmp_path / "s.zarr"
    slides.mkdir()
    for name in NAMES:
        write_coordinate_tiff(slides / f"{name}.tif", extents=[Extent(height=40, width=50)])
    found = run_json("tile", slides, "--out", out, "--only", "a*", "--mpp", "2", "--verify")
    assert [one["name"] for one in found["slides"]] == ["a1", "a2"]
    assert [one["slide"] for one in found["verified"]] == ["a1", "a2"]
    words = ("tile", slides, "--out", out, "--mpp", "2", "--only")
    run_json(*words, table(tmp_path, "slide,mpp\nb1,0.5\na1,\n"))
    stored = {store.name: store.pyramid.mpp for store in open_collection(out)}
    assert stored == {"a1": 2.0, "a2": 2.0, "b1": 0.5}
    refused = run(*words, "c*")
    assert refused.exit_code == 1
    assert "matches no slide; expected some of a1, a2, b1" in " ".join(refused.stderr.split())


@pytest.fixture
def painted(tmp_path):
    """A slide with truth and prediction, under two names."""
    made = paint_prediction(tmp_path)
    for folder in (made.store, made.prediction):
        (folder / "painted").rename(folder / "one")
        copy = folder / "two"
        copy.mkdir()
        for file in (folder / "one").rglob("*"):
            if file.is_file():
                there = copy / file.relative_to(folder / "one")
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(file.read_bytes())
    return made


def test_a_collection_of_some_has_no_others(painted):
    some = open_predictions(painted.prediction).only(["two"])
    assert (some.names(), len(some), "one" in some, "two" in some) == (("two",), 1, False, True)
    assert [store.name for store in some] == ["two"]


def test_evaluate_and_export_take_some(painted, tmp_path):
    scores = run_json("evaluate", painted.prediction, "--truth", painted.store, "--only", "two")
    assert {row["slide"] for row in scores["slides"]} == {"two"}
    words = ("export", painted.prediction, "--geojson", tmp_path / "out", "--only")
    run_json(*words, table(tmp_path, "slide,mpp\none,0.5\n"))
    assert [file.name for file in (tmp_path / "out").glob("*.geojson*")] == ["one.geojson"]
    refused = run(*words, "three")
    assert refused.exit_code == 1
    assert "matches no slide; expected some of one, two" in " ".join(refused.stderr.split())
