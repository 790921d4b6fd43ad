"""Candidates matched to findings by LUNA16's rules."""

import json

import numpy as np
import pytest
from monai.metrics.froc import compute_froc_curve_data, compute_froc_score
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.ct.froc import (
    Findings,
    ScanDetections,
    froc,
    froc_of_files,
    match_detections,
    read_findings,
)
from wsi_seg.errors import AnnotationError, ConfigError


def findings(*rows):
    numbers = np.array([row[1:] for row in rows], dtype=float).reshape(-1, 4)
    return Findings(np.array([row[0] for row in rows]), numbers[:, :3], numbers[:, 3])


def test_the_most_probable_candidate_counts_and_others_in_the_finding_do_not():
    candidates = findings(
        ("a", 1, 0, 0, 0.6), ("a", 0, 0, 4.9, 0.9), ("a", 0, 5, 0, 0.7), ("a", 40, 0, 0, 0.8)
    )
    true = findings(("a", 0, 0, 0, 10), ("a", 90, 0, 0, 10))
    matched = match_detections(candidates, true)
    assert matched.hits.tolist() == [0.9]
    assert matched.false.tolist() == [0.7, 0.8]  # at the radius is outside
    assert matched.true == 2
    excluded = match_detections(candidates, true, findings(("a", 40, 1, 0, 4)))
    assert excluded.false.tolist() == [0.7]


def test_two_scans_by_hand():
    """Scan a: a finding hit twice, and one missed; scan b: no finding, and a false positive."""
    candidates = findings(("a", 0, 0, 0, 0.9), ("a", 1, 0, 0, 0.8), ("b", 0, 0, 0, 0.95))
    true = findings(("a", 0, 0, 0, 10), ("a", 90, 0, 0, 10))
    found = froc([match_detections(candidates.of(s), true.of(s)) for s in "ab"])
    # Above .95: half a false positive per scan and no hit; above .9: half of the findings, too.
    assert found.false_per_scan == (0, 0.5)
    assert found.sensitivity == (0, 0.5)
    assert found.at_rates == pytest.approx([0.125, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert found.cpm == pytest.approx(np.mean([0.125, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5]))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.cpm <= found.high
    assert froc([match_detections(candidates.of("a"), true.of("a"))]).low is None


def test_without_true_findings_there_is_no_curve():
    with pytest.raises(ConfigError, match="no true finding"):
        froc([ScanDetections(np.empty(0), np.array([0.5]), 0)])


@pytest.mark.parametrize("seed", range(5))
def test_monai_reads_the_same_from_its_six_points(seed):
    rng = np.random.default_rng(seed)
    scans = [
        ScanDetections(rng.random(rng.integers(0, 4)), rng.random(rng.integers(0, 30)), 4)
        for _ in range(6)
    ]
    hits = np.concatenate([scan.hits for scan in scans])
    false = np.concatenate([scan.false for scan in scans])
    # MONAI leaves out the lowest probability, which is the 0 of a finding that was missed.
    rate, share = compute_froc_curve_data(false, np.append(hits, 0.0), 24, 6)
    points = (0.25, 0.5, 1, 2, 4, 8)
    expected = compute_froc_score(rate, share, points)
    assert froc(scans, rates=points).cpm == pytest.approx(float(expected), abs=1e-6)


CANDIDATES = "seriesuid,coordX,coordY,coordZ,probability\na,0,0,0,0.9\nb,5,5,5,0.4\n"
TRUTH = "seriesuid,coordX,coordY,coordZ,diameter_mm\na,1,0,0,6\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "candidates.csv").write_text(CANDIDATES)
    (tmp_path / "truth.csv").write_text(TRUTH)
    (tmp_path / "scans.txt").write_text("a\nb\nc\n")
    return tmp_path


def test_files_in_lunas_form(files):
    named = froc_of_files(files / "candidates.csv", files / "truth.csv")
    assert (named.scans, named.cpm) == (2, 1.0)
    words = [
        "ct",
        "froc",
        "candidates.csv",
        "--truth",
        "truth.csv",
        "--scans",
        "scans.txt",
        "--json",
    ]
    words = [str(files / word) if "." in word else word for word in words]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    row = json.loads(done.output.splitlines()[-1])
    assert (row["scans"], row["true"], row["cpm"]) == (3, 1, 1.0)
    assert row["froc"]["false positives per scan"] == pytest.approx([0, 1 / 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seriesuid,coordX,coordY\n", "no column 'coordz'"),
        ("seriesuid,coordX,coordY,coordZ,probability\na,1,2,x,1\n", "cannot be read as findings"),
        ("seriesuid,coordX,coordY,coordZ,probability\na,1,2,inf,1\n", "line 2"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "candidates.csv").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_findings(tmp_path / "candidates.csv", "probability")


def test_real_nodules_found_where_they_are(shared_data, tmp_path):
    truth = shared_data / "cxr-ct-misc" / "ct" / "luna_annos.csv"
    true = read_findings(truth, "diameter_mm")
    rows = ["seriesuid,coordX,coordY,coordZ,probability"]
    rows += [
        f"{scan},{x},{y},{z},0.9" for scan, (x, y, z) in zip(true.scan, true.centre, strict=True)
    ]
    (tmp_path / "candidates.csv").write_text("\n".join(rows))
    found = froc_of_files(tmp_path / "candidates.csv", truth)
    assert (found.cpm, found.true) == (1.0, len(true))
