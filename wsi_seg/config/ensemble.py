"""Owns ensembles: what becomes of the networks of several folds, and the file that names members.

The file is YAML, its paths are relative to its own folder::

    members:
      - {checkpoint: fold_0/best.safetensors, weight: 1.0}
      - {checkpoint: fold_1/best.safetensors, weight: 2.0}
      - {checkpoint: other/ensemble.yaml, weight: 2.0}
    mode: weighted

A member may be the file of another ensemble: its networks share the member's weight.
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
    """What is made of the networks of all folds."""

    average: bool | Literal["greedy"] = False
    """Average the weights of each fold's ``train.top_k`` networks to one network, in place of a
    member each. ``greedy`` begins with the best, adds one after the other, and leaves out those
    with which the score of the slides held out falls."""
    out_of_fold: bool = True
    """Predict every slide by the fold that has not seen it, and keep the predictions."""


class EnsembleMember(Section):
    """One network of an ensemble."""

    checkpoint: str
    """Its file, or that of another ensemble, relative to the ensemble's own."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much it counts; only ratios matter."""


class EnsembleFile(Section):
    """Networks that predict together."""

    members: Annotated[tuple[EnsembleMember, ...], Field(min_length=1)]
    """At least one."""
    mode: Mode = "mean"
    """How they are combined."""


def read_ensemble(path: Path) -> EnsembleFile:
    """Read an ensemble's file; the checkpoints come back as they can be opened from here.

    Raises
    ------
    ConfigError
        If it cannot be read, or says something else than an ensemble does; or if it names another
        ensemble that is not a mean, or is not one itself.
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
    """Give a member as it can be opened from here, or the networks of the ensemble that it is."""
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
