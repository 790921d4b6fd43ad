"""What to annotate next: much uncertainty first, nothing that is annotated, no place twice."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.makers.painted import paint_prediction, write_prediction
from wsi_seg.annotations import read_annotations
from wsi_seg.cli.app import app
from wsi_seg.errors import BatchError
from wsi_seg.evaluation.next_places import next_places
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions

SHAPE = (525, 675)
SCALE = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next")
    painted = paint_prediction(folder)
    shutil.rmtree(painted.store / "painted/labels/annotations")
    return painted.store


def places(store, path, probability, **options):
    write_prediction(path, probability)
    return next_places(
        open_predictions(path), open_collection(store), progress=Silent(), **options
    ).slides


def test_the_most_unsure_place_is_first_and_sure_ones_are_left_out(store, tmp_path):
    probability = np.zeros(SHAPE, dtype=np.uint8)
    probability[128:256, 256:384] = 128
    probability[384:448, 0:64] = 40
    found = places(store, tmp_path / "p.zarr", probability)
    assert found[0].box == (256 * SCALE, 128 * SCALE, 384 * SCALE, 256 * SCALE)
    assert found[0].uncertainty == pytest.approx(1, abs=0.001)
    assert found[0].area == pytest.approx(256**2)
    assert len(found) == 2
    assert found[1].uncertainty == pytest.approx(40 / 255 * 215 / 255, abs=0.001)  # a quarter of it


def test_places_are_unlike_each_other(store, tmp_path):
    probability = np.zeros(SHAPE, dtype=np.uint8)
    probability[:, :256] = 128  # eight places of one kind
    probability[0:128, 512:640] = 255 // 4  # one of another, less unsure
    found = places(store, tmp_path / "p.zarr", probability, count=3)
    assert len({place.box for place in found}) == 3
    assert (512 * SCALE, 0, 640 * SCALE, 128 * SCALE) in [place.box for place in found]


def test_failures_are_counted_among_slides_and_not_among_places(store, tmp_path):
    path = tmp_path / "p.zarr"
    write_prediction(path, np.full(SHAPE, 100, dtype=np.uint8))
    shutil.copytree(path / "painted", path / "unknown")
    report = next_places(open_predictions(path), open_collection(store), progress=Silent())
    assert len(report.slides) > 1
    with pytest.raises(BatchError, match="1 of 2 slides failed, 1 done"):
        report.require_whole()
    done = CliRunner().invoke(app, ["next", str(store), str(path)])
    assert done.exit_code == 1
    assert "Next:" not in done.output


def test_the_verb_writes_what_annotate_reads(store, tmp_path):
    probability = np.full(SHAPE, 100, dtype=np.uint8)
    write_prediction(tmp_path / "p.zarr", probability)
    words = ["next", str(store), str(tmp_path / "p.zarr"), "--count", "4"]
    done = CliRunner().invoke(app, [*words, "--geojson", str(tmp_path / "g"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said["places"]) == 4
    items = read_annotations(tmp_path / "g/painted.geojson").items
    bounds = [list(map(int, item.geometry.bounds)) for item in items]
    assert bounds == [place["box"] for place in said["places"]]


def test_what_is_annotated_counts_no_more(tmp_path):
    painted = paint_prediction(tmp_path)
    with_truth = places(painted.store, tmp_path / "p.zarr", np.full(SHAPE, 128, np.uint8), count=99)
    shutil.rmtree(painted.store / "painted/labels/annotations")
    without = places(painted.store, tmp_path / "q.zarr", np.full(SHAPE, 128, np.uint8), count=99)
    area = {place.box: place.area for place in without}
    assert sum(place.area for place in with_truth) < 0.99 * sum(area.values())
    assert all(place.area <= area[place.box] for place in with_truth)
