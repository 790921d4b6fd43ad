"""Owns ``wsi-seg export``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.choices import Dialect
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.rules import (
    RuleOption,
    ThresholdOption,
    WatershedOption,
    chosen_rule,
    rule_file,
)

_NOT_WRITTEN = "not written"


def export(
    prediction: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg infer`.")] = Path(
        "pred.zarr"
    ),
    slides: Annotated[
        Path, typer.Option(help="Collection of the slides; only overview pictures need it.")
    ] = Path("store.zarr"),
    geojson: Annotated[
        Path | None,
        typer.Option(
            help="Folder for one polygon file per slide, for QuPath.", show_default=_NOT_WRITTEN
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(help="Folder for one PNG of class ids per slide.", show_default=_NOT_WRITTEN),
    ] = None,
    overview: Annotated[
        Path | None,
        typer.Option(
            help="Folder for one picture with outlines per slide.", show_default=_NOT_WRITTEN
        ),
    ] = None,
    ome_tiff: Annotated[
        Path | None,
        typer.Option(
            help="Folder for OME-TIFFs of class ids, and of probabilities where they were saved.",
            show_default=_NOT_WRITTEN,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Folder for tables of objects, as csv and parquet.", show_default=_NOT_WRITTEN
        ),
    ] = None,
    rle: Annotated[
        Path | None,
        typer.Option(
            help="csv file of run-length encoded masks of all slides.", show_default=_NOT_WRITTEN
        ),
    ] = None,
    dialect: Annotated[
        Dialect,
        typer.Option(help="How --rle counts: from the last run, or from the first pixel."),
    ] = "absolute",
    coco: Annotated[
        Path | None,
        typer.Option(help="COCO file of the objects of all slides.", show_default=_NOT_WRITTEN),
    ] = None,
    packed: Annotated[bool, typer.Option("--gz", help="Compress polygon files with gzip.")] = False,
    rule: RuleOption = None,
    threshold: ThresholdOption = None,
    watershed_depth: WatershedOption = 0.0,
    min_area_um2: Annotated[
        float,
        typer.Option(
            help="Leave out polygons smaller than this many um2 (pixels where mpp is unknown)."
        ),
    ] = 0.0,
    json_mode: JsonFlag = False,
) -> None:
    """Write predictions in the formats that other programs read.

    For example:

      wsi-seg export pred.zarr --geojson polygons/
      wsi-seg export pred.zarr --slides store.zarr --overview overviews/
      wsi-seg export pred.zarr --rule run/rule.json --table tables/ --rle out.csv
      wsi-seg export pred.zarr --watershed-depth 0.75 --coco objects.json
    """
    if not any((geojson, png, overview, ome_tiff, table, rle, coco)):
        raise typer.BadParameter(
            "choose some of --geojson, --png, --overview, --ome-tiff, --table, --rle, --coco"
        )

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.exporting.run import ExportTargets
        from wsi_seg.exporting.run import export as run_export
        from wsi_seg.store import open_collection, open_predictions

        chosen = chosen_rule(terminal, rule_file(rule, threshold), threshold, watershed_depth)
        report = run_export(
            open_predictions(prediction),
            open_collection(slides) if overview else None,
            ExportTargets(
                geojson=geojson,
                png=png,
                overview=overview,
                ome_tiff=ome_tiff,
                table=table,
                rle=rle,
                coco=coco,
                min_area_um2=min_area_um2,
                rule=chosen,
                packed=packed,
                dialect=dialect,
            ),
            progress=terminal.progress,
        )
        terminal.show(report)
        terminal.next_command("wsi-seg", "view", slides, prediction)
        report.require_whole()
        return report.to_json()

    run_verb(body, json_mode, writes=prediction)
