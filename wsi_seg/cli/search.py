"""Owns ``wsi-seg search``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsi_seg.choices import Scope, Unit
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.numbers import numbers
from wsi_seg.cli.options import LabelOption, TruthOption
from wsi_seg.cli.rules import WatershedOption


def search(
    predictions: Annotated[
        list[Path],
        typer.Argument(help="Out-of-fold predictions: one collection, or one per fold."),
    ],
    truth: TruthOption = Path("store.zarr"),
    label: LabelOption = "annotations",
    high_threshold: Annotated[
        str,
        typer.Option(
            help="Comma-separated probabilities to try, which some pixels of an image or object "
            "must exceed; 0 keeps the inferred decision of exclusive classes.",
            show_default="0.3 to 0.8; also 0 if classes are exclusive",
        ),
    ] = "",
    low_threshold: Annotated[
        str,
        typer.Option(
            help="Comma-separated probabilities to try, above which all its pixels are then kept "
            "(hysteresis).",
            show_default="the same as --high-threshold",
        ),
    ] = "",
    min_area: Annotated[
        str,
        typer.Option(
            help="Comma-separated areas to try, which pixels above the high threshold must cover; "
            "see --unit."
        ),
    ] = "0",
    unit: Annotated[
        Unit, typer.Option(help="Unit of all areas; lengths are in um or pixels accordingly.")
    ] = "um2",
    per: Annotated[
        Literal[Scope, "both"],
        typer.Option(
            help="Whether --min-area applies to each image or to each object; or try both."
        ),
    ] = "image",
    min_object_area: Annotated[
        float,
        typer.Option(min=0, help="Not searched: remove objects smaller than this; see --unit."),
    ] = 0.0,
    keep_largest: Annotated[
        int,
        typer.Option(
            min=0,
            help="Not searched: number of largest objects to keep per class; 0 keeps all.",
        ),
    ] = 0,
    max_hole_area: Annotated[
        float,
        typer.Option(min=0, help="Not searched: fill holes up to this area; see --unit."),
    ] = 0.0,
    watershed_depth: WatershedOption = 0.0,
    min_distance: Annotated[
        float,
        typer.Option(
            min=0,
            help="Not searched: of objects whose centroids are closer than this (um; pixels with "
            "--unit px), keep the most probable one.",
        ),
    ] = 0.0,
    nms_iou: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Not searched: the same for objects whose boxes overlap with a higher IoU "
            "(non-maximum suppression); 1 keeps all.",
        ),
    ] = 1.0,
    folds: Annotated[
        int, typer.Option(min=2, help="Number of folds to split a single collection into.")
    ] = 5,
    out: Annotated[
        Path, typer.Option(help="File for the rule; the default of `export` and `evaluate`.")
    ] = Path("run/rule.json"),
    json_mode: JsonFlag = False,
) -> None:
    """Find the best thresholds on out-of-fold predictions.

    Prints the score on the slides that the rule was selected by, which is optimistic, and the
    cross-validated score, which estimates that on new slides. Options that are not searched are
    stored with the rule. Slides without the ground-truth label are listed and skipped; if others
    fail, the exit code is 1.

    For example:

      wsi-seg search run/fold_*/oof.zarr --truth store.zarr
      wsi-seg search oof.zarr --high-threshold 0.6,0.75 --low-threshold 0.3,0.4
      wsi-seg search oof.zarr --min-area 0,500,2000 --per object
    """
    highs, lows, areas = (numbers(text) for text in (high_threshold, low_threshold, min_area))

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluation.search import grid, usual_highs
        from wsi_seg.evaluation.search import search as find
        from wsi_seg.files.atomic import require_permission
        from wsi_seg.postprocess.rule import SCOPES, Rule
        from wsi_seg.store import open_collection, open_predictions

        require_permission(out)
        base = Rule(
            unit=unit,
            min_object_area=min_object_area,
            keep_largest=keep_largest,
            max_hole_area=max_hole_area,
            watershed_depth=watershed_depth,
            min_distance=min_distance,
            nms_iou=nms_iou,
        )
        scopes = [one for one in SCOPES if per in (one, "both")]
        found = [open_predictions(path) for path in predictions]
        report = find(
            found,
            open_collection(truth),
            grid(highs or usual_highs(found), lows, areas, per=scopes, base=base),
            label=label,
            parts=folds,
            out=out,
            progress=terminal.progress,
        )
        terminal.show(report)
        terminal.say(f"wrote {out}")
        report.require_whole()
        terminal.next_command(
            "wsi-seg", "export", "pred.zarr", "--rule", out, "--geojson", "found/"
        )
        return {**report.to_json(), "file": out}

    run_verb(body, json_mode)
