"""Owns ``wsi-seg export``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.rules import SplitOption, chosen_rule, rule_file, rule_line


class DialectName(enum.StrEnum):
    """Dialects of run-length encoding."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"


def export(
    prediction: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg infer`.")] = Path(
        "pred.zarr"
    ),
    store: Annotated[
        Path, typer.Option(help="Collection of the slides; overview pictures need it.")
    ] = Path("store.zarr"),
    geojson: Annotated[
        Path | None, typer.Option(help="Folder for one polygon file per slide, for QuPath.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Folder for one PNG of class ids per slide.")
    ] = None,
    overview: Annotated[
        Path | None, typer.Option(help="Folder for one picture with outlines per slide.")
    ] = None,
    ome_tiff: Annotated[
        Path | None,
        typer.Option(
            help="Folder for OME-TIFFs of class ids, and probabilities if they were saved."
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Folder for object tables, as csv and parquet.")
    ] = None,
    rle: Annotated[
        Path | None, typer.Option(help="File for run-length encoded masks of all slides.")
    ] = None,
    dialect: Annotated[
        DialectName, typer.Option(help="How runs are written.")
    ] = DialectName.ABSOLUTE,
    coco: Annotated[Path | None, typer.Option(help="File for the objects of all slides.")] = None,
    packed: Annotated[bool, typer.Option("--gz", help="Gzip polygon files.")] = False,
    rule: Annotated[
        Path | None,
        typer.Option(help="Rule found by `wsi-seg search`; default: run/rule.json, if it is."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Keep px above this, whatever was found.")
    ] = None,
    split: SplitOption = 0.0,
    min_area_um2: Annotated[
        float, typer.Option(help="Leave out polygons smaller than this (px² where mpp is unknown).")
    ] = 0.0,
    json_mode: JsonFlag = False,
) -> None:
    """Write predictions in the formats people use.

    For example:

      wsi-seg export pred.zarr --geojson polygons/
      wsi-seg export pred.zarr --store store.zarr --overview overviews/
      wsi-seg export pred.zarr --rule run/rule.json --table tables/ --rle out.csv
      wsi-seg export nuclei.zarr --threshold 0.4 --split 0.75 --table tables/
    """
    if not any((geojson, png, overview, ome_tiff, table, rle, coco)):
        raise typer.BadParameter(
            "choose some of --geojson, --png, --overview, --ome-tiff, --table, --rle, --coco"
        )

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.export.run import ExportTargets, export_collection
        from wsi_seg.store import open_collection

        file = rule_file(rule, threshold)
        chosen = chosen_rule(file, threshold, split)
        if chosen is not None:
            terminal.say(rule_line(file, chosen))
        report = export_collection(
            open_collection(prediction),
            open_collection(store) if overview else None,
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
                dialect=dialect.value,
            ),
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        return report.to_json()

    run_verb(body, json_mode, writes=prediction)
