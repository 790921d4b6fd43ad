from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.cards import make_card
from wsi_seg.classes import ClassTable
from wsi_seg.errors import TrainingError
from wsi_seg.evaluation.calibration import Reliability
from wsi_seg.evaluation.scores import Counts, Scores, SlideScore
from wsi_seg.evaluation.tiles import tile_dices
from wsi_seg.geometry import Region
from wsi_seg.learn import validate
from wsi_seg.learn.history import History
from wsi_seg.learn.monitor import figures
from wsi_seg.learn.validate import Validation, score_slides
from wsi_seg.models import build_network, load_checkpoint
from wsi_seg.progress import Silent
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

# Half found on a small slide, all found on a large one.
UNEQUAL = Scores(
    (
        SlideScore("small", "disc", Counts(5, 5, 5), tile_dices=(0.2, 0.4)),
        SlideScore("large", "disc", Counts(1000, 0, 0), tile_dices=(0.6,)),
    )
)


def values_of(scores):
    """Pixels by probability of a network that says 0 or 1."""
    found: dict[str, Any] = {}
    for one in scores.slides:
        counts = np.zeros((256, 2), dtype=np.int64)
        counts[255], counts[0] = (one.counts.fp, one.counts.tp), (100, one.counts.fn)
        found.setdefault(one.slide, {})[one.class_name] = Reliability(counts)
    return found


NOTHING = SimpleNamespace(slides=(), failures={})  # what inference reports of no slides


def test_figures_differ_and_are_named(recipe_for, tmp_path, monkeypatch):
    monkeypatch.setattr(validate, "infer_with", lambda *words, **named: NOTHING)
    monkeypatch.setattr(validate, "score_slides", lambda *words, **named: UNEQUAL)
    monkeypatch.setattr(validate, "_values", lambda *words: values_of(UNEQUAL))
    row = Validation(recipe_for(), make_card(), (), tmp_path).score(nn.Identity(), "cpu", Silent())
    sure = -np.log(0.5 / 255)
    assert row == {
        "val_dice": 2010 / 2020,
        "val_dice_slide": 0.75,
        "val_dice_objects": 0.75,
        "val_loss": pytest.approx(10 * sure / 1215, abs=0.002),
        "val_triplet": 0.75,
        "val_pooled_dice_disc": 2010 / 2020,
        "val_slide_dice_disc": 0.75,
        "val_slide_dice_disc_sd": 0.25,
        "val_tile_dice_disc": pytest.approx(0.4),
    }


def slices(finds):
    """250 slices, 12 with a nodule of 400 px: a silent network, or stray pixels on a fifth."""
    found = []
    for z in range(250):
        true = 400 if z % 21 == 1 else 0
        stray = int(finds and z % 5 == 0)
        counts = Counts(true, stray, 0) if finds else Counts(0, 0, true)
        found.append(SlideScore(f"slice-{z}", "nodule", counts))
    assert sum(one.counts.tp + one.counts.fn > 0 for one in found) == 12
    return Scores(tuple(found))


@pytest.mark.parametrize("monitor", ["dice", "dice_objects", "loss", "triplet"])
def test_the_network_that_finds_the_nodules_is_chosen(monitor):
    """By mean per-slide Dice with empty = 1 the silent one is better, .952 against .8."""
    rows = [
        {"epoch": float(epoch)} | figures(scores, values_of(scores))
        for epoch, scores in enumerate((slices(finds=False), slices(finds=True)), start=1)
    ]
    assert [round(row["val_dice_slide"], 2) for row in rows] == [0.95, 0.81]
    assert History(rows, monitor="val_dice_slide").best is rows[0]
    history = History(rows, monitor=f"val_{monitor}")
    assert history.best is rows[1]
    assert history.top(2) == rows[::-1]
    assert history.validations_since_best == 0


def test_slices_of_a_volume_are_one_case():
    scores = Scores(
        (
            SlideScore("ct_z0001", "nodule", Counts(50, 0, 50)),
            SlideScore("ct_z0002", "nodule", Counts(0, 100, 0)),
            SlideScore("other_z0001", "nodule", Counts(0, 0, 0)),
        )
    )
    row = figures(scores, values_of(scores))
    assert row["val_dice_objects"] == row["val_dice"] == 100 / 250
    assert row["val_dice_slide"] == (100 / 250 + 1) / 2


def test_nothing_to_choose_by_is_an_error(recipe_for, tmp_path, monkeypatch):
    empty = Scores((SlideScore("a", "disc", Counts(0, 0, 0)),))
    monkeypatch.setattr(validate, "infer_with", lambda *words, **named: NOTHING)
    monkeypatch.setattr(validate, "score_slides", lambda *words, **named: empty)
    monkeypatch.setattr(validate, "_values", lambda *words: values_of(empty))
    validation = Validation(recipe_for("train.monitor=dice_objects"), make_card(), (), tmp_path)
    with pytest.raises(TrainingError, match="no slide held out shows any class"):
        validation.score(nn.Identity(), "cpu", Silent())


def test_the_best_are_kept_and_no_others(recipe_for, tmp_path, card_of):
    recipe = recipe_for("train.top_k=2")
    card = card_of(recipe)
    network = build_network(card.spec)
    history, validation = History(), Validation(recipe, card, (), tmp_path)
    for epoch, score in enumerate((0.3, 0.6, 0.6, 0.1, 0.5), start=1):
        with torch.no_grad():
            next(iter(network.parameters())).fill_(epoch)
        history.rows.append({"epoch": float(epoch), "val_dice": score, "loss": 1.0})
        validation.keep(network, history)
    kept = sorted(path.name for path in (tmp_path / "top").glob("*.safetensors"))
    assert kept == ["epoch_0002.safetensors", "epoch_0003.safetensors"]
    best, stated = load_checkpoint(tmp_path / "best.safetensors")
    assert next(iter(best.parameters())).unique().tolist() == [2.0]
    assert stated.scores == {"val_dice": 0.6}


def test_without_validation_the_last_are_the_best():
    history = History([{"epoch": float(epoch)} for epoch in (1, 2, 3)])
    assert [row["epoch"] for row in history.top(2)] == [3.0, 2.0]


def test_tiles_that_show_nothing_do_not_count(slides, tmp_path):
    """Per tile, per slide and pooled are three figures; on these labels they are far apart."""
    store = open_collection(slides / "store.zarr")
    slide = store["a"]
    extent = slide.pyramid.extent
    truth = slide.label("annotations").read(
        Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    )
    found = (truth == 1).astype(np.uint8)
    found[:64] = 0  # everything is missed in the first row of tiles
    create_collection(tmp_path / "pred.zarr")
    about = {"kind": "prediction", "classes": ClassTable.named(["disc"]).to_json()}
    for path, pixels in (("a", found[..., None]), ("a/labels/prediction", found)):
        write_image(tmp_path / "pred.zarr" / path, pixels, about)
    expected = []
    for y in range(0, extent.height, 64):
        for x in range(0, extent.width, 64):
            ours, theirs = found[y : y + 64, x : x + 64], truth[y : y + 64, x : x + 64] == 1
            if ours.any() or theirs.any():
                expected.append(2 * (ours * theirs).sum() / (ours.sum() + theirs.sum()))
    assert 0.0 in expected
    assert 1.0 in expected
    stored = open_predictions(tmp_path / "pred.zarr")["a"].label("prediction")
    dices = tile_dices(stored, slide.label("annotations"), 64)["disc"]
    assert list(dices) == pytest.approx(expected)
    (score,) = score_slides(tmp_path / "pred.zarr", [slide], "annotations", Silent()).slides
    assert abs(score.counts.dice - np.mean(dices)) > 0.01
