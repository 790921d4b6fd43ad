"""Folders of results: what a kill left is removed, and one that cannot be written is said first."""

import os

import pytest

from tests.commands import run
from tests.makers.painted import NAME, paint_prediction
from wsi_seg.exporting import omezarr
from wsi_seg.files.half_written import partial_path
from wsi_seg.postprocess.rule import Rule, write_rule
from wsi_seg.sampling.dedup import Duplicates, write_duplicates
from wsi_seg.testing.stores import digests


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("painted"))


def evaluate(painted, out):
    return run("evaluate", painted.prediction, "--truth", painted.store, "--out", out)


def evaluate_share(painted, out):
    words = ("--truth", painted.store, "--out", out, "--shard", "1/1")
    return run("evaluate", painted.prediction, *words)


def report(painted, out):
    words = ("--slides", painted.store, "--out", out / "report.html")
    return run("report", painted.prediction, *words)


def search(painted, out):
    words = ("--truth", painted.store, "--out", out / "rule.json")
    return run("search", painted.prediction, painted.prediction, *words)


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        (evaluate, ["scores.json", "slides.csv"]),
        (evaluate_share, ["scores.json", "slides.csv"]),
        (report, ["report.html"]),
        (search, ["rule.json"]),
    ],
)
def test_what_a_kill_left_next_to_results_is_removed(painted, tmp_path, verb, names):
    for name in names:
        partial_path(tmp_path / name).write_text("half")
    done = verb(painted, tmp_path)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_what_a_kill_left_next_to_single_files_is_removed(tmp_path):
    files = [tmp_path / "rule.json", tmp_path / "duplicates.json"]
    for file in files:
        partial_path(file).write_text("half")
    write_rule(files[0], Rule(0.5, 0.5), {})
    assert write_duplicates(tmp_path, Duplicates((), ())) == files[1]
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_killed_export_of_one_file_leaves_no_folder(painted, tmp_path, monkeypatch):
    words = ("export", painted.prediction, "--ome-zarr", tmp_path, "--ozx")
    if not (child := os.fork()):
        monkeypatch.setattr(omezarr, "_zip", lambda *_: os._exit(9))
        run(*words)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [path for path in tmp_path.iterdir() if path.suffix == ".scratch"]
    assert run(*words).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".exported", f"{NAME}.ozx"]


@pytest.mark.parametrize("verb", [evaluate, evaluate_share, report, search])
def test_a_folder_that_cannot_be_written_is_said_before_any_work(painted, tmp_path, verb):
    (tmp_path / "file").touch()
    before = digests(painted.prediction)
    refused = verb(painted, tmp_path / "file" / "scores")
    assert refused.exit_code == 1
    assert f"{tmp_path}/file is not a writable folder; choose another" in refused.stderr
    assert digests(painted.prediction) == before
