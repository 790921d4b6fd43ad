"""Owns ``wsi-seg annotate``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


class RleDialect(enum.StrEnum):
    """Ways to write runs."""

    RELATIVE = "relative"
    ABSOLUTE = "absolute"


def annotate(
    store: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    annotations: Annotated[
        list[Path], typer.Argument(help="Annotation files or folders, named like the slides.")
    ],
    name: Annotated[str, typer.Option(help="Name of the label.")] = "annotations",
    classes: Annotated[
        str,
        typer.Option(
            help="Classes to keep, in the order of their ids: a,b,c; c=d,e merges d and e."
        ),
    ] = "",
    default_class: Annotated[
        str | None, typer.Option(help="Class of features that name none.")
    ] = None,
    rle: Annotated[
        RleDialect | None, typer.Option(help="How a csv writes runs; told from the masks if not.")
    ] = None,
    volumes: Annotated[
        list[Path] | None,
        typer.Option(help="Volumes (mhd, nii) that a csv of spheres in mm speaks of."),
    ] = None,
    boundary_um: Annotated[
        float,
        typer.Option(min=0, help="Width of a class `boundary` between touching objects; 0: none."),
    ] = 0.0,
    samples: Annotated[
        int, typer.Option(min=1, max=16, help="Points a side of a px that decide at low levels.")
    ] = 1,
    source: Annotated[
        str | None, typer.Option(help="Who drew: expert, hand, pseudo, external, review.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="How much they count in training.")
    ] = None,
    rest_empty: Annotated[
        bool,
        typer.Option(
            "--rest-empty", help="Slides that no file names, now or before, have nothing on them."
        ),
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Draw polygons into the slides whose names they bear.

    Reads GeoJSON (QuPath's export, HuBMAP's form), LabelMe, COCO, CAMELYON-style JSON, ASAP's
    XML, csv files of run-length encoded masks or of spheres in mm (seriesuid, coordX, coordY,
    coordZ, diameter_mm), and masks as PNG or TIFF; the content decides.

    For example:

      wsi-seg annotate store.zarr polygons/
      wsi-seg annotate store.zarr slide-1.geojson --classes gland,vessel
      wsi-seg annotate store.zarr polygons/ --classes glomerulus=gn,gs,gl,gm
      wsi-seg annotate store.zarr train.csv --default-class pneumothorax
      wsi-seg annotate store.zarr predicted/ --name pseudo --source pseudo --weight 0.5
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from dataclasses import asdict

        from wsi_seg.masks.annotate import Reading, annotate_collection
        from wsi_seg.slides import slide_name
        from wsi_seg.slides.volume import volume_grid
        from wsi_seg.store import open_collection

        names, merged = _classes(classes)
        report = annotate_collection(
            open_collection(store),
            annotations,
            name=name,
            reading=Reading(
                names,
                default_class,
                None if rle is None else rle.value,
                source,
                weight,
                {slide_name(path): volume_grid(path) for path in volumes or []},
                boundary_um,
                samples,
                rest_empty,
                merged,
            ),
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        terminal.next_command("wsi-seg", "train", "recipe.yaml", "--out", "run")
        return asdict(report)

    run_verb(body, json_mode, writes=store)


def _classes(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Classes, and the classes of the names that are merged.

    What follows ``name=`` up to the next one is merged to it.
    """
    names: list[str] = []
    merged: dict[str, str] = {}
    into = None
    for word in (word.strip() for word in text.split(",")):
        if not word:
            continue
        name, equals, part = (one.strip() for one in word.partition("="))
        if equals:
            into = name
            names.append(name)
        elif into is None:
            names.append(name)
            continue
        merged[part or name] = into or name
    return tuple(names), merged
