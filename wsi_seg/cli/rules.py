"""Owns the options for the decision rule that several commands share."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_seg.cli.console import Terminal

if TYPE_CHECKING:
    from wsi_seg.postprocess.rule import Rule

RuleOption = Annotated[
    Path | None,
    typer.Option(
        help="File of the decision rule, written by `search`.",
        show_default="run/rule.json if it exists, else the decision of `infer`",
    ),
]

ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Keep pixels above this probability, instead of a rule.",
        show_default="use the rule",
    ),
]

WatershedOption = Annotated[
    float,
    typer.Option(
        min=0,
        help="Split touching objects by a watershed at necks at least this deep (um; pixels if "
        "that is the rule's unit); 0 splits nothing.",
    ),
]

# Default output of `wsi-seg search`.
FOUND_RULE = Path("run/rule.json")


def rule_file(named: Path | None, threshold: float | None) -> Path | None:
    """Return the given file of a rule, or that of the last search if no threshold is given."""
    return named or (FOUND_RULE if threshold is None and FOUND_RULE.is_file() else None)


def chosen_rule(
    terminal: Terminal, file: Path | None, threshold: float | None, watershed_depth: float = 0.0
) -> "Rule | None":
    """Return the rule of a file or a threshold, and show it; None keeps the decision of infer.

    Raises
    ------
    typer.BadParameter
        If both a file and a threshold are given.
    ConfigError
        If the file is not a rule.
    """
    if file is not None and threshold is not None:
        raise typer.BadParameter("choose one of --rule, --threshold")
    from wsi_seg.postprocess.rule import Rule, fixed, read_rule

    rule = None if threshold is None else fixed(threshold)
    if file is not None:
        rule = read_rule(file)
    if watershed_depth:
        rule = replace(rule or Rule(), watershed_depth=watershed_depth)
    if rule is not None:
        terminal.say(f"{'rule' if file is None else f'rule of {file}'}: {rule.describe()}")
    return rule
