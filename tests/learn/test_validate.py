from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.cards import make_card
from wsi_seg.classes import ClassTable
from wsi_seg.config import LossConfig
from wsi_seg.errors import TrainingError
from wsi_seg.evaluation.calibration import Reliability
from wsi_seg.evaluation.scores import Counts, Scores, SlideScore
from wsi_seg.evaluation.tiles import tile_dices
from wsi_seg.geometry import Region
from wsi_seg.learn import validate
from wsi_seg.learn.history import History
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.losses.pixels import Pixels
from wsi_seg.learn.monitor import RULES, figures
from wsi_seg.learn.validate import Validation, score_slides
from wsi_seg.models import build_network, load_checkpoint
from wsi_seg.progress import Silent
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

# Half of a small slide's object is found, and all of a large one's.
UNEQUAL = Scores(
    (
        SlideScore("small", "disc", Counts(5, 5, 5), tile_dices=(0.2, 0.4)),
        SlideScore("large", "disc", Counts(1000, 0, 0), tile_dices=(0.6,)),
    )
)


def values_of(scores):
    """Return pixel counts by probability for a network that predicts 0 or 1."""
    found: dict[str, Any] = {}
    for one in scores.slides:
        counts = np.zeros((256, 2), dtype=np.int64)
        counts[255], counts[0] = (one.counts.fp, one.counts.tp), (100, one.counts.fn)
        found.setdefault(one.slide, {})[one.class_name] = Reliability(counts)
    return found


NOTHING = SimpleNamespace(slides=(), failures={})  # inference report without slides


def test_metrics_differ_and_have_names(recipe_for, tmp_path, monkeypatch):
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
        "val_soft_dice": 0.75,
        "val_triplet": 0.75,
        "val_pooled_dice_disc": 2010 / 2020,
        "val_slide_dice_disc": 0.75,
        "val_slide_dice_disc_sd": 0.25,
        "val_tile_dice_disc": pytest.approx(0.4),
    }


def slices(finds):
    """Return 250 slices, 12 with a nodule of 400 px, for a silent or a noisy network."""
    found = []
    for z in range(250):
        true = 400 if z % 21 == 1 else 0
        stray = int(finds and z % 5 == 0)
        counts = Counts(true, stray, 0) if finds else Counts(0, 0, true)
        found.append(SlideScore(f"slice-{z}", "nodule", counts))
    assert sum(one.counts.tp + one.counts.fn > 0 for one in found) == 12
    return Scores(tuple(found))


@pytest.mark.parametrize("monitor", ["dice", "dice_objects", "loss", "soft_dice", "triplet"])
def test_the_network_that_finds_the_nodules_is_selected(monitor):
    """By mean per-slide Dice with empty = 1, the silent one is better, .952 against .8."""
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


def spread(true, false):
    """Return pixel counts of one slide from probabilities inside and outside the class."""
    counts = np.zeros((256, 2), dtype=np.int64)
    for column, pixels in ((1, true), (0, false)):
        for probability, count in pixels.items():
            counts[round(probability * 255), column] += count
    return {"finding": Reliability(counts)}


def scores_of(values):
    """Return the scores of the same pixels at a threshold of one half."""
    found = []
    for slide, classes in values.items():
        ((name, one),) = classes.items()
        low, high = one.counts[:128].sum(axis=0), one.counts[128:].sum(axis=0)
        found.append(SlideScore(slide, name, Counts(int(high[1]), int(high[0]), int(low[1]))))
    return Scores(tuple(found))


def test_epochs_are_scored_by_the_published_triplets():
    """A finding of 2,500 confident pixels with a rim of .35, and empty X-rays with 700.

    At .5 the rim is missed and the empty ones have findings; (.75, 1000, .3) is right for all.
    """
    assert {(0.75, 2000, 0.3), (0.7, 600, 0.3)} <= {(t, least, low) for t, low, least in RULES}
    values = {"ill": spread({0.9: 2500, 0.35: 2500}, {0.01: 5000})}
    values |= {f"well-{n}": spread({}, {0.8: 700, 0.01: 9000}) for n in range(3)}
    row = figures(scores_of(values), values)
    assert row["val_dice_slide"] == pytest.approx((2 / 3 + 0) / 4)
    assert row["val_triplet"] == pytest.approx(1.0)
    best = {"ill": values["ill"]}
    assert figures(scores_of(best), best)["val_triplet"] == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(5))
def test_triplets_of_many_slides_equal_those_of_each(seed):
    rng = np.random.default_rng(seed)
    values = {
        f"v{n % 3}_z{n:04d}": spread(
            {p: int(rng.integers(400)) for p in (0.1, 0.45, 0.8)},
            {p: int(rng.integers(400)) for p in (0.1, 0.45, 0.8)},
        )
        for n in range(7)
    }

    def by_hand(top, bottom, least):
        cases: dict[str, Any] = {}
        for slide, classes in values.items():
            counts = classes["finding"].counts
            kept = counts[np.arange(256) / 255 > bottom]
            if counts[np.arange(256) / 255 > top].sum() < max(1, least):
                kept = kept[:0]
            one = np.array([kept[:, 1].sum(), kept.sum() + counts[:, 1].sum()])
            cases[slide[:2]] = cases.get(slide[:2], 0) + one
        return np.mean([2 * hit / total if total else 1.0 for hit, total in cases.values()])

    best = max(by_hand(*rule) for rule in RULES)
    assert figures(scores_of(values), values)["val_triplet"] == pytest.approx(best)


def test_soft_dice_is_one_minus_the_dice_loss():
    """Of two networks with the same label map, the more confident one scores better."""
    rows = []
    for sure in (0.6, 0.9):
        values = {"a": spread({sure: 30, 0.2: 10}, {1 - sure: 50})}
        rows.append(figures(scores_of(values), values))
        logits = torch.logit(torch.tensor([[sure] * 30 + [0.2] * 10 + [1 - sure] * 50]))
        label = torch.tensor([[1] * 40 + [0] * 50]).byte()
        px = Pixels.of(logits.reshape(1, 1, 9, 10), label.reshape(1, 9, 10))
        loss = SegmentationLoss(LossConfig.model_validate({"dice": {"weight": 1.0}}))(px)
        assert rows[-1]["val_soft_dice"] == pytest.approx(1 - loss.item(), abs=0.003)
    assert rows[0]["val_dice_slide"] == rows[1]["val_dice_slide"]
    assert rows[0]["val_soft_dice"] < rows[1]["val_soft_dice"]


def test_an_undefined_monitor_is_an_error(recipe_for, tmp_path, monkeypatch):
    empty = Scores((SlideScore("a", "disc", Counts(0, 0, 0)),))
    monkeypatch.setattr(validate, "infer_with", lambda *words, **named: NOTHING)
    monkeypatch.setattr(validate, "score_slides", lambda *words, **named: empty)
    monkeypatch.setattr(validate, "_values", lambda *words: values_of(empty))
    validation = Validation(recipe_for("train.monitor=dice_objects"), make_card(), (), tmp_path)
    with pytest.raises(TrainingError, match="no held-out slide contains any class"):
        validation.score(nn.Identity(), "cpu", Silent())


def test_what_a_killed_validation_left_is_removed_by_the_next(recipe_for, tmp_path, monkeypatch):
    folders = []

    def infer_with(model, slides, out, options, *, progress):
        folders.append(out.parent)
        assert not list(out.parent.iterdir())
        return NOTHING

    monkeypatch.setattr(validate, "infer_with", infer_with)
    monkeypatch.setattr(validate, "score_slides", lambda *words, **named: UNEQUAL)
    monkeypatch.setattr(validate, "_values", lambda *words: values_of(UNEQUAL))
    validation = Validation(recipe_for(), make_card(), (), tmp_path)
    validation.score(nn.Identity(), "cpu", Silent())
    (folders[0] / "pred.zarr").mkdir(parents=True)  # as if the process had been killed
    validation.score(nn.Identity(), "cpu", Silent())
    assert folders[0] == folders[1]
    assert not list(tmp_path.iterdir())


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


def test_empty_tiles_do_not_count(slides, tmp_path):
    """Dice per tile, per slide and pooled differ clearly on these labels."""
    store = open_collection(slides / "store.zarr")
    slide = store["a"]
    extent = slide.pyramid.extent
    truth = slide.label("annotations").read(
        Region(level=0, y=0, x=0, height=extent.height, width=extent.width)
    )
    found = (truth == 1).astype(np.uint8)
    found[:64] = 0  # the first row of tiles is missed
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
