"""Owns ``wsi-seg search``."""

import enum
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.numbers import numbers
from wsi_seg.cli.rules import SplitOption


class ScopeName(enum.StrEnum):
    """What strong px are counted for."""

    IMAGE = "image"
    OBJECT = "object"
    BOTH = "both"


class UnitName(enum.StrEnum):
    """Unit of areas."""

    UM2 = "um2"
    PX = "px"


def search(
    predictions: Annotated[
        list[Path],
        typer.Argument(help="Out-of-fold predictions: one collection, or one for each fold."),
    ],
    truth: Annotated[Path, typer.Option(help="Collection with the true labels.")] = Path(
        "store.zarr"
    ),
    label: Annotated[str, typer.Option(help="Name of the true label.")] = "annotations",
    top: Annotated[
        str, typer.Option(help="Thresholds that strong px are above, with commas.")
    ] = "0.3,0.4,0.5,0.6,0.7,0.8",
    bottom: Annotated[
        str, typer.Option(help="Thresholds that kept px are above; empty: the same as --top.")
    ] = "",
    min_area: Annotated[str, typer.Option(help="Least areas of strong px, with commas.")] = "0",
    unit: Annotated[UnitName, typer.Option(help="Unit of the areas.")] = UnitName.UM2,
    scope: Annotated[
        ScopeName, typer.Option(help="Count strong px of each image or of each object.")
    ] = ScopeName.IMAGE,
    min_object_area: Annotated[
        float, typer.Option(min=0, help="Kept with the rule: smaller objects are left out.")
    ] = 0.0,
    largest: Annotated[
        int, typer.Option(min=0, help="Kept with the rule: largest objects of a class; 0: all.")
    ] = 0,
    max_hole_area: Annotated[
        float, typer.Option(min=0, help="Kept with the rule: holes up to this are filled.")
    ] = 0.0,
    split: SplitOption = 0.0,
    apart: Annotated[
        float, typer.Option(min=0, help="Kept with the rule: of nearer centres, the likelier.")
    ] = 0.0,
    max_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Kept with the rule: the same for boxes' overlap.")
    ] = 1.0,
    parts: Annotated[
        int, typer.Option(min=2, help="Folds to make of the slides of one collection.")
    ] = 5,
    out: Annotated[Path, typer.Option(help="File for the rule; export looks there.")] = Path(
        "run/rule.json"
    ),
    json_mode: JsonFlag = False,
) -> None:
    """Find thresholds on predictions of slides that the model did not learn from.

    Prints the score on the slides the rule was chosen by, which is optimistic, and the score
    that new slides may expect. Thresholds and areas of strong px are searched; what else is given
    is kept with the rule, for `wsi-seg export` and `wsi-seg evaluate --rule`. Slides without the
    true label are named and left out; if others fail, the exit code is 1, after the rest is done.

    For example:

      wsi-seg search run/fold_*/oof.zarr --truth store.zarr
      wsi-seg search run/fold_*/oof.zarr --top 0.6,0.75 --bottom 0.3,0.4 --min-area 500,2000
    """
    tops, bottoms, areas = (numbers(text) for text in (top, bottom, min_area))

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluate.search import grid
        from wsi_seg.evaluate.search import search as find
        from wsi_seg.postprocess.rule import SCOPES, Scope, write_rule
        from wsi_seg.store import open_collection

        scopes: list[Scope] = [one for one in SCOPES if scope.value in (one, "both")]
        rules = grid(tops, bottoms, areas, unit=unit.value, per=scopes)
        report = find(
            [open_collection(path) for path in predictions],
            open_collection(truth),
            rules,
            label=label,
            parts=parts,
            progress=terminal.progress,
        )
        rule = replace(
            report.rule,
            min_object_area=min_object_area,
            keep_largest=largest,
            max_hole_area=max_hole_area,
            watershed_depth=split,
            min_distance=apart,
            nms_iou=max_iou,
        )
        write_rule(out, rule, {**report.to_json(), "label": label})
        terminal.say("\n".join(report.lines()))
        terminal.say(f"wrote {out}")
        terminal.next_command(
            "wsi-seg", "export", "pred.zarr", "--rule", out, "--geojson", "polygons/"
        )
        report.require_whole()
        return {**report.to_json(), "file": out}

    run_verb(body, json_mode)
