"""Owns rounds of hard mining: what each round's recipe is, and what is mined between two."""

import json
from pathlib import Path

from pydantic import JsonValue

from wsi_seg.config import Recipe
from wsi_seg.evaluation.hard_negatives import HardRule, mine
from wsi_seg.learn.out_of_fold import OUT_OF_FOLD
from wsi_seg.learn.validate import BEST
from wsi_seg.progress import Progress
from wsi_seg.store import open_collection, open_predictions

# Seeds of rounds must not be those of phases, which are counted from the first round's.
_SEEDS = 1000


def round_name(number: int) -> str:
    """Name of the folder of a round, which are counted from 0 and named from 1."""
    return f"round_{number + 1}"


def recipes_of_rounds(recipe: Recipe, out: Path) -> tuple[Recipe, ...]:
    """Recipe of each round: the first as it is, the others from the networks of the one before.

    Parameters
    ----------
    recipe
        With ``rounds``.
    out
        Folder of the whole run, in which each round has one.
    """
    rounds = recipe.rounds
    assert rounds is not None
    first = recipe.model_copy(update={"rounds": None})
    last_stage = first.stages[-1]
    found = [first]
    for number in range(1, rounds.count + 1):
        values: dict[str, JsonValue] = last_stage.model_dump(mode="json")
        before = out.resolve() / round_name(number - 1) / "fold_{fold}" / BEST
        values["model"] = {**_section(values, "model"), "weights": str(before)}
        mix = last_stage.sampling.mix
        others = mix.total - mix.hard_negatives
        share = others * rounds.hard_negatives / (1 - rounds.hard_negatives)
        largest = max(1.0, share)
        shares = mix.model_dump(mode="json") | {"hard_negatives": share}
        # Shares are at most 1.
        scaled = {key: _scaled(value, largest) for key, value in shares.items()}
        values["sampling"] = {**_section(values, "sampling"), "mix": scaled}
        values["seed"] = recipe.seed + number * _SEEDS
        if number == rounds.count and rounds.loss is not None:
            values["loss"] = rounds.loss.model_dump(mode="json")
        found.append(Recipe.model_validate_json(json.dumps(values)))
    return tuple(found)


def mine_round(recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Mark in the slides where each fold was wrong on those that it had not seen.

    Parameters
    ----------
    recipe
        With ``rounds``, ``data.stores`` and ``data.folds``.
    folder
        Of the round that is over.
    progress
        Advanced by slides.

    Raises
    ------
    BatchError
        If a slide cannot be mined.
    """
    rounds, count = recipe.rounds, recipe.data.folds
    assert rounds is not None
    assert count is not None
    rule = HardRule(rounds.least, rounds.missed)
    slides = {store.name: store for path in recipe.data.stores for store in open_collection(path)}
    for fold in range(count):
        mine(
            open_predictions(folder / f"fold_{fold}" / OUT_OF_FOLD),
            slides,
            label=recipe.data.label,
            ring_um=rounds.ring_um,
            rule=rule,
            progress=progress,
        ).require_whole()


def _section(values: dict[str, JsonValue], name: str) -> dict[str, JsonValue]:
    section = values[name]
    assert isinstance(section, dict)
    return section


def _scaled(value: JsonValue, largest: float) -> JsonValue:
    if isinstance(value, dict):
        return {key: _scaled(one, largest) for key, one in value.items()}
    assert isinstance(value, int | float)
    return value / largest
