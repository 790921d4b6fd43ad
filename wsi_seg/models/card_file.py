"""Owns hand-written model cards, as YAML or JSON, for networks exported from other software.

They have the fields of a checkpoint's card, with fewer required: classes may be plain names, and
mean and std are omitted if the network normalises images itself.
"""

import json
from pathlib import Path

import yaml

from wsi_seg.classes import ClassTable
from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models.card import FORMAT, ModelCard, card_from_json

# Suffixes of a card next to its network file.
_SUFFIXES = (".yaml", ".yml", ".json")

_EXAMPLE = """for example:
  classes: [gland]
  mpp: 0.5
  tile_px: 512
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  output: logits  # or probabilities"""


def card_next_to(path: Path) -> Path | None:
    """Return the card next to a file, with the same name but for the suffix; None if missing."""
    return next((found for end in _SUFFIXES if (found := path.with_suffix(end)).is_file()), None)


def read_card_file(path: Path) -> ModelCard:
    """Read a card from a YAML or JSON file.

    Parameters
    ----------
    path
        A mapping with ``classes`` (names, or rows with colours; exclusive classes, whose network
        returns the background first, are ``{mode: exclusive, table: [...]}``), ``mpp`` (null if
        unknown) and ``tile_px``; ``mean`` and ``std`` of ``image / 255``, omitted if the network's
        input is 0 to 255; ``output``: ``logits`` or ``probabilities``; and any other field of a
        card. The JSON file that `wsi-seg train` writes next to a checkpoint is a card, too.

    Raises
    ------
    CheckpointError
        If the file is missing, or is not a card.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot read card {path} ({error.strerror or error}); expected YAML or JSON, "
            f"{_EXAMPLE}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a model card: {_line(error)}") from error
    return card_of_values(values, source=str(path))


def card_of_values(given: object, *, source: str) -> ModelCard:
    """Build a card from parsed YAML or JSON; ``source`` names it in errors.

    Raises
    ------
    CheckpointError
        If the values are not a card.
    """
    if not isinstance(given, dict):
        raise CheckpointError(f"{source} is not a model card; expected a mapping, {_EXAMPLE}")
    if "format" not in given and "output" not in given:
        raise CheckpointError(
            f"{source} is not a model card: it has no output; expected output: logits, or "
            "output: probabilities"
        )
    channels = len(given.get("mean") or ()) or 3
    defaults = {"format": FORMAT, "in_channels": channels, "scores": {}, "training": {}}
    values = defaults | given
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


def _class_table(classes: object) -> object:
    """Convert plain class names to rows of a table; return anything else unchanged."""
    mode = classes.get("mode") if isinstance(classes, dict) else None
    names = classes.get("table") if isinstance(classes, dict) else classes
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return ClassTable.named(names, mode=mode).to_json()
    return classes


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
