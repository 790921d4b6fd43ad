import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.makers.painted import paint_prediction, write_prediction
from wsi_seg.cli.app import app
from wsi_seg.cli.console import Terminal
from wsi_seg.cli.rules import chosen_rule
from wsi_seg.errors import OutputError
from wsi_seg.postprocess.rule import Rule, fixed, read_rule, write_rule


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("rules"))


def run(*words):
    return CliRunner().invoke(app, [*map(str, words), "--json"])


def test_the_rule_of_the_options(tmp_path, capsys):
    def chosen(*options):
        return chosen_rule(Terminal(), *options)

    file = tmp_path / "rule.json"
    write_rule(file, Rule(0.7, 0.4, 20), {})
    assert chosen(None, None) is None
    assert capsys.readouterr().out == ""
    assert chosen(None, 0.3) == fixed(0.3)
    assert capsys.readouterr().out == "rule: above 0.3\n"
    assert chosen(None, None, 2.0) == Rule(watershed_depth=2.0)
    assert chosen(file, None, 2.0) == Rule(0.7, 0.4, 20, watershed_depth=2.0)
    write_rule(file, Rule(watershed_depth=1.0), {})
    assert chosen(file, None, 0.0) == Rule(watershed_depth=1.0)
    assert f"rule of {file}: as inferred, split" in capsys.readouterr().out


def test_the_rule_that_was_found_decides_for_all_verbs(painted, tmp_path, monkeypatch):
    """Else the scores would be of another decision than the polygons."""
    monkeypatch.chdir(tmp_path)
    write_rule(tmp_path / "run/rule.json", fixed(1.0), {})
    exported = run("export", painted.prediction, "--geojson", tmp_path)
    assert json.loads(exported.output.splitlines()[-1])["objects"] == {"painted": 0}
    scores = run("evaluate", painted.prediction, "--truth", painted.store)
    assert json.loads(scores.output.splitlines()[-1])["slides"][0]["objects_found"] == 0
    plain = run("evaluate", painted.prediction, "--truth", painted.store, "--threshold", 0.5)
    assert json.loads(plain.output.splitlines()[-1])["slides"][0]["objects_found"] > 0


def test_a_rule_and_a_threshold_are_one_too_many(painted, tmp_path):
    done = run("export", painted.prediction, "--rule", "r", "--threshold", 0.5, "--rle", tmp_path)
    assert done.exit_code == 2
    assert "choose one of --rule, --threshold" in done.output


@pytest.fixture
def touching(painted, tmp_path):
    """Collection whose only objects are three discs that touch."""
    y, x = np.mgrid[: painted.probability.shape[0], : painted.probability.shape[1]]
    discs = [np.hypot(y - 200, x - cx) < 30 for cx in (100, 150, 200)]
    path = tmp_path / "touching.zarr"
    write_prediction(path, (np.any(discs, axis=0) * 200).astype(np.uint8))
    return path


@pytest.mark.parametrize("asked", ["option", "rule"])
def test_touching_objects_are_split_when_asked(painted, touching, tmp_path, asked):
    write_rule(tmp_path / "rule.json", Rule(watershed_depth=3.0), {})
    options = ("--watershed-depth", 3) if asked == "option" else ("--rule", tmp_path / "rule.json")
    exported = run("export", touching, *options, "--geojson", tmp_path)
    assert json.loads(exported.output.splitlines()[-1])["objects"] == {"painted": 3}
    scores = run("evaluate", touching, "--truth", painted.store, *options)
    assert json.loads(scores.output.splitlines()[-1])["slides"][0]["objects_found"] == 3
    whole = run("evaluate", touching, "--truth", painted.store)
    assert json.loads(whole.output.splitlines()[-1])["slides"][0]["objects_found"] == 1


def test_a_threshold_is_scored_without_a_rule(painted):
    found = {}
    for threshold in (0.5, 0.6):  # the one mistake has 0.55
        words = ("evaluate", painted.prediction, "--truth", painted.store)
        done = run(*words, "--threshold", threshold)
        found[threshold] = json.loads(done.output.splitlines()[-1])["slides"][0]["fp"]
    assert found == {0.5: 12 * 15, 0.6: 0}


def test_a_search_keeps_the_other_options_with_the_rule(painted, tmp_path):
    twin = tmp_path / "twin"
    for folder, kind in ((painted.store, "store"), (painted.prediction, "pred")):
        shutil.copytree(folder, twin / f"{kind}.zarr")
        shutil.copytree(folder / "painted", twin / f"{kind}.zarr" / "other")
    done = run(
        "search", twin / "pred.zarr", "--truth", twin / "store.zarr", "--out", tmp_path / "r.json",
        "--high-threshold", "0.4,0.5", "--watershed-depth", 1.5, "--keep-largest", 9,
        "--max-hole-area", 40, "--min-object-area", 7, "--min-distance", 4, "--nms-iou", 0.3,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rule = read_rule(tmp_path / "r.json")
    assert (rule.watershed_depth, rule.keep_largest) == (1.5, 9)
    assert (rule.max_hole_area, rule.min_object_area) == (40, 7)
    assert (rule.min_distance, rule.nms_iou) == (4, 0.3)
    assert rule.high_threshold in (0.4, 0.5)


def test_a_rule_is_kept_in_a_folder_that_is_not_there_yet(tmp_path):
    write_rule(tmp_path / "run" / "fold" / "rule.json", fixed(0.4), {})
    assert read_rule(tmp_path / "run" / "fold" / "rule.json") == fixed(0.4)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_rule(tmp_path / "file" / "rule.json", fixed(0.4), {})
