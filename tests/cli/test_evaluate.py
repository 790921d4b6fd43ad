import csv
import json

import pytest
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.postprocess.rule import fixed, write_rule
from wsi_seg.testing.painted import paint_prediction


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("evaluate"))


def run(*words):
    done = CliRunner().invoke(app, ["evaluate", *map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


def test_every_kind_of_score_is_told_and_kept(painted, tmp_path):
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


def test_a_rule_is_judged_by_what_it_decides(painted, tmp_path):
    write_rule(tmp_path / "rule.json", fixed(1.0), {})
    none = run(painted.prediction, "--truth", painted.store, "--rule", tmp_path / "rule.json")
    assert none["slides"][0]["tp"] == 0
    assert none["slides"][0]["objects_found"] == 0
