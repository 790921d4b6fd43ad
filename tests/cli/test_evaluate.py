import csv
import json
import shutil

import pytest
from typer.testing import CliRunner

from tests.commands import run_json
from tests.makers.painted import paint_prediction
from wsi_seg.cli.app import app
from wsi_seg.postprocess.rule import fixed, write_rule
from wsi_seg.store import update_attributes


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("evaluate"))


def run(*words):
    return run_json("evaluate", *words)


def test_every_kind_of_score_is_reported_and_kept(painted, tmp_path):
    found = run(painted.prediction, "--truth", painted.store, "--out", tmp_path / "scores")
    row = found["slides"][0]
    for name in ("dice", "iou", "tile_dice", "object_f1", "object_pq", "surface_dice"):
        assert 0 < row[name] < 1
    assert row["hd95_um"] is not None
    assert row["objects_found"] > row["objects_true"] * row["object_recall"]
    kept = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert kept["slides"] == found["slides"]
    with (tmp_path / "scores" / "slides.csv").open() as file:
        (first, *_) = csv.DictReader(file)
    assert float(first["surface_dice"]) == row["surface_dice"]


def test_a_wider_tolerance_forgives_more(painted):
    near, far = (
        run(painted.prediction, "--truth", painted.store, "--tolerance-um", um) for um in (0, 2000)
    )
    assert near["slides"][0]["surface_dice"] < far["slides"][0]["surface_dice"]
    assert near["slides"][0]["dice"] == far["slides"][0]["dice"]


def test_a_rule_is_scored_by_what_it_decides(painted, tmp_path):
    write_rule(tmp_path / "rule.json", fixed(1.0), {})
    none = run(painted.prediction, "--truth", painted.store, "--rule", tmp_path / "rule.json")
    assert none["slides"][0]["tp"] == 0
    assert none["slides"][0]["objects_found"] == 0


def test_tiles_that_inference_could_not_read_are_reported_with_scores_and_exports(
    painted, tmp_path
):
    prediction = shutil.copytree(painted.prediction, tmp_path / "p.zarr")
    update_attributes(
        prediction / "painted", {"quarantined": [[0, 256, "damaged"], [9, 9, "gone"]]}
    )
    expected = ["painted: 2 tiles could not be read; background is assumed there"]
    assert run(prediction, "--truth", painted.store)["warnings"] == expected
    words = ["export", str(prediction), "--png", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert expected[0] in done.output
    assert run(painted.prediction, "--truth", painted.store)["warnings"] == []


@pytest.fixture
def several(painted, tmp_path):
    """Painted slides a, b and c; nobody drew on c, and another name is in the truth for d."""
    store, prediction = tmp_path / "store.zarr", tmp_path / "pred.zarr"
    for name in "abc":
        shutil.copytree(painted.store / "painted", store / name)
        shutil.copytree(painted.prediction / "painted", prediction / name)
    shutil.copytree(painted.prediction / "painted", prediction / "d")
    for folder, source in ((store, painted.store), (prediction, painted.prediction)):
        shutil.copy(source / "zarr.json", folder)
    shutil.rmtree(store / "c" / "labels" / "annotations")
    return prediction, store


def verb(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_slide_without_truth_is_a_note_next_to_the_scores_of_the_others(several, tmp_path):
    prediction, store = several
    shutil.rmtree(prediction / "d")
    done = verb("evaluate", prediction, "--truth", store, "--out", tmp_path / "scores", "--maps")
    assert done.exit_code == 0, done.output
    assert "1 slide without truth not scored: c" in done.stdout
    kept = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert [row["slide"] for row in kept["slides"]] == ["a", "b"]
    assert kept["unscored"] == ["c"]
    assert kept["calibration"]["gland"]["ece"] > 0


def test_a_slide_that_fails_does_not_hide_the_scores_of_the_others(several, tmp_path):
    prediction, store = several
    write_rule(tmp_path / "rule.json", fixed(0.6), {})
    words = ("--out", tmp_path / "scores", "--rule", tmp_path / "rule.json")
    done = verb("evaluate", prediction, "--truth", store, *words)
    assert done.exit_code == 1
    assert "a\tgland" in done.stdout
    assert "error: 1 of 3 slides failed, 2 done" in done.stderr
    assert "has no slide 'd'" in done.stderr
    kept = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert [row["slide"] for row in kept["slides"]] == ["a", "b"]
    assert list(kept["failures"]) == ["d"]


def test_a_label_that_no_slide_has_is_an_error(several):
    prediction, store = several
    done = verb("evaluate", prediction, "--truth", store, "--label", "other")
    assert done.exit_code == 1
    assert "got label 'other'; it has: annotations, tissue; make it with" in done.stderr
    assert "4 of 4 slides failed" in done.stderr


def test_search_uses_the_slides_that_have_truth(several, tmp_path):
    prediction, store = several
    words = ("search", prediction, "--truth", store, "--out", tmp_path / "rule.json")
    done = verb(*words)
    assert done.exit_code == 1
    assert "on 2 slides in 2 folds" in done.stdout
    assert "1 slide without truth not scored: c" in done.stdout
    assert "error: 1 of 3 slides failed, 2 done" in done.stderr
    assert (tmp_path / "rule.json").exists()
    shutil.rmtree(prediction / "d")
    assert verb(*words).exit_code == 0
    shutil.rmtree(store / "b" / "labels" / "annotations")
    done = verb(*words)
    assert "got 1 predicted slide with label 'annotations'" in done.stderr
    done = verb(*words, "--label", "other")
    assert "got label 'other'" in done.stderr
