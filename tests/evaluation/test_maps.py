import json

import numpy as np
import pytest
from scipy.special import logsumexp
from typer.testing import CliRunner

from tests.makers.painted import paint_prediction
from wsi_seg.cli.app import app
from wsi_seg.evaluation.compare import evaluate, evaluate_slide
from wsi_seg.evaluation.maps import ENERGY, UNCERTAINTY, energy_score_table, uncertainty_table
from wsi_seg.evaluation.scores import Measures
from wsi_seg.geometry import Region
from wsi_seg.postprocess.rule import fixed
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    painted = paint_prediction(tmp_path_factory.mktemp("maps"))
    words = ["evaluate", str(painted.prediction), "--truth", str(painted.store), "--maps"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return painted, open_predictions(painted.prediction)["painted"]


def px_of(store, name):
    extent = store.pyramid.extent
    return store.label(name).read(
        Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    )


def test_colours_match_the_confusion_counts(mapped):
    painted, found = mapped
    slide = open_collection(painted.store)["painted"]
    scores = evaluate_slide(found, slide, label="annotations", progress=Silent())
    states = np.bincount(px_of(found, "errors").ravel(), minlength=4)
    assert states[1] == sum(s.counts.tp for s in scores)
    assert states[2] == sum(s.counts.fp for s in scores)
    assert states[3] == sum(s.counts.fn for s in scores)
    colours = [row["colour"] for row in found.label("errors").attributes["classes"]]
    assert len(set(colours)) == 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_energy_is_that_of_the_logits(temperature):
    table, step = energy_score_table(temperature)
    logit = np.log(200 / 55)
    expected = temperature * logsumexp(np.array([0.0, logit]) / temperature)
    assert table[200] * step == pytest.approx(expected, abs=step)
    assert (np.diff(table.astype(int)) >= 0).all()


def test_uncertainty_is_highest_at_one_half():
    table, step = uncertainty_table()
    assert table[127] == table[128] == table.max()
    assert table[51] * step == pytest.approx(0.2 * 0.8, abs=step)
    assert table[0] == table[255] == 0


def test_heat_maps_are_of_the_probabilities(mapped):
    painted, found = mapped
    for name, (table, step) in ((ENERGY, energy_score_table()), (UNCERTAINTY, uncertainty_table())):
        assert np.array_equal(px_of(found, name), table[painted.probability])
        assert found.label(name).attributes["step"] == step


def test_one_call_decides_scores_maps_and_writes(mapped, tmp_path):
    painted, _ = mapped
    predictions, slides = open_predictions(painted.prediction), open_collection(painted.store)
    scores = evaluate(predictions, slides, rule=fixed(0.6), maps=True, out=tmp_path)
    assert scores.slides[0].counts.fp == 0  # the one mistake has 0.55
    assert scores.slides[0].objects is not None
    assert scores.maps == {"painted": ("errors", "energy", "uncertainty")}
    assert "labels errors, energy, uncertainty added to 1 prediction" in scores.lines()
    assert predictions["painted"].label("errors").attributes["scored"] == "decision"
    assert json.loads((tmp_path / "scores.json").read_text()) == scores.to_json()
    assert (tmp_path / "slides.csv").read_text().startswith("slide,class,dice,iou")
    plain = evaluate(predictions, slides, measures=Measures())
    assert plain.slides[0].counts.fp == 12 * 15
    assert plain.slides[0].objects is None
    assert plain.maps == {}
