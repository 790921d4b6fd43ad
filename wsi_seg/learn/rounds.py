"""Owns rounds of hard-example mining: the recipe of each round, and mining between rounds."""

import json
from pathlib import Path

from pydantic import JsonValue

from wsi_seg.config import Recipe
from wsi_seg.evaluation.hard_negatives import HardRule, mine
from wsi_seg.learn.out_of_fold import OUT_OF_FOLD
from wsi_seg.learn.validate import BEST
from wsi_seg.progress import Progress
from wsi_seg.store import open_collection, open_predictions

# Offset of seeds between rounds; phases add small numbers to the seed of their round.
_SEEDS = 1000


def round_name(number: int) -> str:
    """Return the folder name of a round; ``number`` starts at 0, names at ``round_1``."""
    return f"round_{number + 1}"


def recipes_of_rounds(recipe: Recipe, out: Path) -> tuple[Recipe, ...]:
    """Return the recipe of each round; after the first, they start from the previous networks.

    Parameters
    ----------
    recipe
        Recipe with ``rounds``.
    out
        Folder of the whole run, which contains the folders of the rounds.
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
        # Scale down, because a share is at most 1.
        scaled = {key: _scaled(value, largest) for key, value in shares.items()}
        values["sampling"] = {**_section(values, "sampling"), "mix": scaled}
        values["seed"] = recipe.seed + number * _SEEDS
        if number == rounds.count and rounds.loss is not None:
            values["loss"] = rounds.loss.model_dump(mode="json")
        found.append(Recipe.model_validate_json(json.dumps(values)))
    return tuple(found)


def mine_round(recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Write the errors of each fold's out-of-fold predictions into the slides as hard negatives.

    Parameters
    ----------
    recipe
        Recipe with ``rounds``, ``data.stores`` and ``data.folds``.
    folder
        Folder of the finished round.
    progress
        Advanced once per slide.

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
