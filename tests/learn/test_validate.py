import torch

from wsi_seg.evaluate.scores import Counts, Scores, SlideScore
from wsi_seg.learn import validate
from wsi_seg.learn.history import History
from wsi_seg.learn.validate import Validation
from wsi_seg.models import build_network, load_checkpoint
from wsi_seg.progress import Silent

# Half found on a small slide, all found on a large one.
UNEQUAL = Scores(
    (
        SlideScore("small", "disc", Counts(5, 5, 5)),
        SlideScore("large", "disc", Counts(1000, 0, 0)),
    )
)


def test_per_slide_and_pooled_dice_differ_and_are_named(recipe_for, tmp_path, monkeypatch):
    monkeypatch.setattr(validate, "infer_with", lambda *words, **named: None)
    monkeypatch.setattr(validate, "score_slides", lambda *words: UNEQUAL)
    row = Validation(recipe_for(), None, (), tmp_path).score(None, "cpu", Silent())
    assert row == {
        "val_dice": 0.75,
        "val_dice_disc": 0.75,
        "val_dice_disc_sd": 0.25,
        "val_pooled_dice_disc": 2010 / 2020,
    }


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
