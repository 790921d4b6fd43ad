"""Owns ``wsi-seg annotate``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def annotate(
    store: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    annotations: Annotated[
        list[Path], typer.Argument(help="Annotation files or folders, named like the slides.")
    ],
    name: Annotated[str, typer.Option(help="Name of the label.")] = "annotations",
    classes: Annotated[
        str, typer.Option(help="Classes to keep, in the order of their ids: a,b,c.")
    ] = "",
    default_class: Annotated[
        str | None, typer.Option(help="Class of features that name none.")
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Draw polygons into the slides whose names they bear.

    Reads GeoJSON (QuPath's export, HuBMAP's form) and LabelMe; the content decides.

    For example:

      wsi-seg annotate store.zarr polygons/
      wsi-seg annotate store.zarr slide-1.geojson --classes gland,vessel
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from dataclasses import asdict

        from wsi_seg.masks.annotate import annotate_collection
        from wsi_seg.store import open_collection

        report = annotate_collection(
            open_collection(store),
            annotations,
            name=name,
            class_names=[word.strip() for word in classes.split(",") if word.strip()],
            default_class=default_class,
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        terminal.next_command("wsi-seg", "train", "recipe.yaml", "--out", "run")
        return asdict(report)

    run_verb(body, json_mode)
