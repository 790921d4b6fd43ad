"""Owns ``wsi-seg export``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


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
        Path | None, typer.Option(help="Folder for one overview picture per slide.")
    ] = None,
    min_area_um2: Annotated[
        float, typer.Option(help="Leave out polygons smaller than this (px² where mpp is unknown).")
    ] = 0.0,
    json_mode: JsonFlag = False,
) -> None:
    """Write predictions in the formats people use.

    For example:

      wsi-seg export pred.zarr --geojson polygons/
      wsi-seg export pred.zarr --store store.zarr --png overviews/
    """
    if geojson is None and png is None:
        raise typer.BadParameter("choose at least one of --geojson, --png")

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.export.run import ExportTargets, export_collection
        from wsi_seg.store import open_collection

        report = export_collection(
            open_collection(prediction),
            open_collection(store) if png else None,
            ExportTargets(geojson=geojson, png=png, min_area_um2=min_area_um2),
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        return report.to_json()

    run_verb(body, json_mode)
