"""How far probabilities can be trusted, and the maps that calibrate them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from typer.testing import CliRunner

from tests.makers.painted import paint_prediction, write_prediction
from wsi_seg.cli.app import app
from wsi_seg.evaluation.calibration import Reliability, slide_reliability
from wsi_seg.geometry import Region
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.store.lock import locked


def counted(values, truth):
    pairs = values.astype(np.int64) * 2 + truth
    return Reliability(np.bincount(pairs, minlength=512).reshape(256, 2))


def drawn(temperature, seed=0, count=200_000):
    """Values of a model whose logits are too large by a factor, and what came true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, count)
    truth = rng.random(count) < 1 / (1 + np.exp(-logits))
    said = 1 / (1 + np.exp(-logits * temperature))
    return np.rint(said * 255).astype(np.uint8), truth


@given(st.integers(0, 2**32 - 1))
def test_the_curve_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, 500, dtype=np.uint8)
    truth = rng.random(500) < values / 300
    said, true = counted(values, truth).curve()
    theirs = calibration_curve(truth, values / 255, n_bins=10)
    assert true == pytest.approx(theirs[0].tolist())
    assert said == pytest.approx(theirs[1].tolist())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_of_a_model_is_found_and_mends_it(temperature):
    values, truth = drawn(temperature)
    found = counted(values, truth)
    assert found.temperature() == pytest.approx(temperature, rel=0.03)
    for method in ("temperature", "quantile"):
        table = found.table(method)
        assert (np.diff(table.astype(int)) >= 0).all()
        assert counted(table[values], truth).ece < 0.01
    if temperature != 1:
        assert found.ece > 0.05


def test_no_pixels_at_all_change_nothing():
    nothing = Reliability(np.zeros((256, 2), dtype=np.int64))
    assert nothing.ece == 0
    assert nothing.temperature() == 1
    assert nothing.table("quantile").tolist() == list(range(256))


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint_prediction(tmp_path_factory.mktemp("calibrate"))


def test_counts_are_those_of_whole_arrays(painted):
    slide = open_collection(painted.store)["painted"]
    found = open_predictions(painted.prediction)["painted"]
    (one,) = slide_reliability(found, slide, label="annotations").values()
    values = painted.probability
    assert one.counts.sum(axis=1).tolist() == np.bincount(values.ravel(), minlength=256).tolist()


def test_a_prediction_is_written_again_with_other_probabilities(painted, tmp_path):
    out = tmp_path / "calibrated.zarr"
    words = ["calibrate", str(painted.prediction), "--truth", str(painted.store)]
    words += ["--apply", str(painted.prediction), "--out", str(out), "--method", "quantile"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.output.splitlines()[-1])["classes"].values()
    assert row["ece"] > 0.01
    before, after = (open_predictions(p)["painted"] for p in (painted.prediction, out))
    assert after.attributes["calibration"] == "quantile"
    assert after.pyramid == before.pyramid
    height, width = painted.probability.shape
    whole = Region(level=0, y=0, x=0, height=height, width=width)
    assert not np.array_equal(after.image.read(whole), before.image.read(whole))
    again = slide_reliability(after, open_collection(painted.store)["painted"], label="annotations")
    assert next(iter(again.values())).ece < row["ece"]


def test_results_of_another_calibration_are_not_kept(painted, tmp_path):
    def run(*words, method="temperature", source=painted.prediction):
        out = tmp_path / "calibrated.zarr"
        chosen = ["calibrate", painted.prediction, "--truth", painted.store, "--apply", source]
        chosen += ["--out", out, "--method", method, *words]
        return CliRunner().invoke(app, list(map(str, chosen)))

    def files():
        folder = tmp_path / "calibrated.zarr" / "painted"
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}

    assert run().exit_code == 0
    first = files()
    assert run().exit_code == 0  # resumes: nothing is left to do
    assert files() == first
    refused = run(method="quantile")
    assert refused.exit_code == 1
    assert "the method was temperature and is now quantile" in refused.output
    assert "--overwrite" in refused.output
    write_prediction(tmp_path / "other.zarr", painted.probability // 2)
    other = run(source=tmp_path / "other.zarr")
    assert other.exit_code == 1
    assert "another calibration: another prediction was calibrated;" in other.output
    assert files() == first
    assert run("--overwrite", method="quantile").exit_code == 0
    assert files().keys() == first.keys()
    assert files() != first


def test_what_was_not_calibrated_is_never_replaced(painted):
    before = (painted.prediction / "painted" / "zarr.json").read_bytes()
    words = ["calibrate", painted.prediction, "--truth", painted.store, "--overwrite"]
    words += ["--apply", painted.prediction, "--out", painted.prediction]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 1
    assert "is not a calibrated prediction" in done.output
    assert (painted.prediction / "painted" / "zarr.json").read_bytes() == before


def test_a_collection_is_calibrated_by_one_command_at_a_time(painted, tmp_path):
    out = tmp_path / "calibrated.zarr"
    words = ["calibrate", painted.prediction, "--truth", painted.store]
    words += ["--apply", painted.prediction, "--out", out]
    with locked(out, "wsi-seg infer", make=True):
        done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 1
    assert "is in use by `wsi-seg infer`" in done.output
