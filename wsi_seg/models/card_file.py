"""Owns model cards that people write, as YAML or JSON, for networks of other programs.

It is the card of a checkpoint with less that has to be said: names alone may stand for classes,
and where a network normalises images itself, mean and deviation are left out.
"""

import json
from pathlib import Path

import yaml

from wsi_seg.classes import ClassTable
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models.card import FORMAT, ModelCard, card_from_json

# What a card may be called next to its file.
_ENDINGS = (".yaml", ".yml", ".json")

_EXAMPLE = """for example:
  classes: [gland]
  mpp: 0.5
  tile_px: 512
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  output: logits  # or probabilities"""


def card_next_to(path: Path) -> Path | None:
    """Card of the same name as a file, in the same folder; None without one."""
    return next((found for end in _ENDINGS if (found := path.with_suffix(end)).is_file()), None)


def read_card_file(path: Path) -> ModelCard:
    """Card of a YAML or JSON file.

    Parameters
    ----------
    path
        A mapping with ``classes`` (names, or rows with colours; exclusive ones, whose network
        gives the background first, are ``{mode: exclusive, table: [...]}``), ``mpp`` (null where
        unknown) and
        ``tile_px``; ``mean`` and ``std`` of ``image / 255``, left out where the network takes
        values of 0 to 255; ``output``: ``logits`` or ``probabilities``; and whatever else a card
        says. JSON that `wsi-seg train` writes next to a checkpoint is a card, too.

    Raises
    ------
    CheckpointError
        If the file is missing, or is not a card.
    """
    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot read card {path} ({error.strerror or error}); expected YAML or JSON, "
            f"{_EXAMPLE}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a model card: {_line(error)}") from error
    return card_of_values(stated, source=str(path))


def card_of_values(stated: object, *, source: str) -> ModelCard:
    """Card of plain values; ``source`` names them in errors.

    Raises
    ------
    CheckpointError
        If they are not a card.
    """
    if not isinstance(stated, dict):
        raise CheckpointError(f"{source} is not a model card; expected a mapping, {_EXAMPLE}")
    if "format" not in stated and "output" not in stated:
        raise CheckpointError(
            f"{source} is not a model card: it does not say what the network gives; expected "
            "output: logits, or output: probabilities"
        )
    channels = len(stated.get("mean") or ()) or 3
    usual = {"format": FORMAT, "in_channels": channels, "scores": {}, "training": {}}
    values = usual | stated
    if "mean" not in values and "std" not in values:
        count = values["in_channels"]
        count = count if isinstance(count, int) and 0 < count <= 1024 else 1
        values |= {"mean": [0.0] * count, "std": [1 / 255] * count}
    try:
        values["classes"] = _class_table(values.get("classes"))
        return card_from_json(json.dumps(values))
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} is not a model card: {_line(error)}; {_EXAMPLE}"
        ) from error


def _class_table(stated: object) -> object:
    """Classes as rows, where they are names alone; anything else as it is."""
    mode = stated.get("mode") if isinstance(stated, dict) else None
    names = stated.get("table") if isinstance(stated, dict) else stated
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return ClassTable.named(names, mode=mode).to_json()
    return stated


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
