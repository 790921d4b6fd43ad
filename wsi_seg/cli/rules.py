"""Owns which rule a verb decides by, from the options that several verbs share."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wsi_seg.postprocess.rule import Rule

SplitOption = Annotated[
    float,
    typer.Option(
        min=0,
        help="Part touching objects at necks this deep (um; px where the rule counts px).",
    ),
]

# Where `wsi-seg search` leaves what it found.
FOUND_RULE = Path("run/rule.json")


def rule_file(named: Path | None, threshold: float | None) -> Path | None:
    """File of the rule to decide by: the one named, or what was found, unless told a threshold."""
    return named or (FOUND_RULE if threshold is None and FOUND_RULE.is_file() else None)


def rule_line(file: Path | None, rule: "Rule") -> str:
    """Tell which rule decides, and where it comes from."""
    return f"{'rule' if file is None else f'rule of {file}'}: {rule.describe()}"


def chosen_rule(file: Path | None, threshold: float | None, split: float) -> "Rule | None":
    """Rule of a file or of a threshold, parted as asked; None stands for what infer decided.

    Raises
    ------
    typer.BadParameter
        If both a file and a threshold are given.
    ConfigError
        If the file holds no rule.
    """
    if file is not None and threshold is not None:
        raise typer.BadParameter("choose one of --rule, --threshold")
    from wsi_seg.postprocess.rule import Rule, fixed, read_rule

    rule = None if threshold is None else fixed(threshold)
    if file is not None:
        rule = read_rule(file)
    return replace(rule or Rule(), watershed_depth=split) if split else rule
