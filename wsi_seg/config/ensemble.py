"""Owns the settings of ensembles: the recipe section, and the file that lists members.

The file is YAML; its paths are relative to its own folder::

    members:
      - {checkpoint: fold_0/best.safetensors, weight: 1.0}
      - {checkpoint: fold_1/best.safetensors, weight: 2.0}
      - {checkpoint: other/ensemble.yaml, weight: 2.0}
    mode: weighted

A member may be another ensemble file: its networks share the member's weight.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from wsi_seg.choices import Mode
from wsi_seg.config.section import Section
from wsi_seg.config.text import read_yaml
from wsi_seg.errors import ConfigError


class EnsembleConfig(Section):
    """How the networks of all folds are combined."""

    average: bool | Literal["greedy"] = False
    """Average the weights of each fold's ``train.top_k`` networks into one network (model soup)
    instead of making each a member. ``greedy`` starts with the best, adds the others one by one,
    and drops those that lower the score on the held-out slides."""
    out_of_fold: bool = True
    """Predict every slide with the fold that held it out, and save the predictions."""


class EnsembleMember(Section):
    """One network of an ensemble."""

    checkpoint: str
    """Path of a checkpoint, or of another ensemble file, relative to this ensemble file."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the member; only ratios matter."""


class EnsembleFile(Section):
    """Networks whose predictions are combined."""

    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=1)]
    """At least one member."""
    mode: Mode = "mean"
    """How predictions are combined."""


def read_ensemble(path: Path) -> EnsembleFile:
    """Read an ensemble file, with nested ensembles expanded and paths relative to the working dir.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not an ensemble, or if it names another ensemble and one of
        the two has a mode other than mean or weighted.
    """
    found = _read(path)
    members = tuple(network for one in found.members for network in _networks(one, found, path))
    return found.model_copy(update={"members": members})


def _read(path: Path) -> EnsembleFile:
    try:
        return EnsembleFile.model_validate_json(json.dumps(read_yaml(path)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "ensemble"
        raise ConfigError(
            f"{path}: {key}: {first['msg']}; expected members, each with checkpoint and weight, "
            "and mode: mean, weighted, geometric or vote"
        ) from error


def _networks(member: EnsembleMember, outer: EnsembleFile, path: Path) -> list[EnsembleMember]:
    """Resolve a member's path; expand it if it is an ensemble itself."""
    file = path.parent / member.checkpoint
    if file.suffix not in (".yaml", ".yml"):
        return [member.model_copy(update={"checkpoint": str(file)})]
    inner = _read(file)
    for where, mode in ((path, outer.mode), (file, inner.mode)):
        if mode not in ("mean", "weighted"):
            raise ConfigError(
                f"{path} names another ensemble, {file}, and {where} has mode {mode}; expected "
                "mean or weighted in both: name the networks themselves"
            )
    share = member.weight / sum(one.weight for one in inner.members)
    return [
        EnsembleMember(checkpoint=str(file.parent / one.checkpoint), weight=one.weight * share)
        for one in inner.members
    ]
