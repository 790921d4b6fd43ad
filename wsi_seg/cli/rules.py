"""Owns which rule a verb decides by, from the options that several verbs share."""

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
        help="Decide by the rule in this file, which `search` writes.",
        show_default="run/rule.json where it exists, else what `infer` decided",
    ),
]

ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Decide by this probability in place of a rule: pixels above it are kept.",
        show_default="decide by the rule",
    ),
]

WatershedOption = Annotated[
    float,
    typer.Option(
        min=0,
        help="Split touching objects by a watershed at necks at least this deep (um; pixels where "
        "the rule counts pixels); 0 splits none.",
    ),
]

# Where `wsi-seg search` leaves what it found.
FOUND_RULE = Path("run/rule.json")


def rule_file(named: Path | None, threshold: float | None) -> Path | None:
    """File of the rule to decide by: the one named; what was found, where no threshold is given."""
    return named or (FOUND_RULE if threshold is None and FOUND_RULE.is_file() else None)


def chosen_rule(
    terminal: Terminal, file: Path | None, threshold: float | None, watershed_depth: float = 0.0
) -> "Rule | None":
    """Rule of a file or of a threshold, with the watershed asked for; None: what infer decided.

    The terminal says which rule it is.

    Raises
    ------
    typer.BadParameter
        If both a file and a threshold are given.
    ConfigError
        If the file does not hold a rule.
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
