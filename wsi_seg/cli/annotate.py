"""Owns ``wsi-seg annotate``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.choices import Dialect
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import ShardOption, shard_of


def annotate(
    collection: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    annotations: Annotated[
        list[Path], typer.Argument(help="Annotation files or folders, named like the slides.")
    ],
    name: Annotated[str, typer.Option(help="Name of the label that is written.")] = "annotations",
    classes: Annotated[
        str,
        typer.Option(
            help="Classes to keep, in the order of their ids: a,b,c; c=d,e merges d and e into c.",
            show_default="all, in alphabetical order",
        ),
    ] = "",
    default_class: Annotated[
        str | None,
        typer.Option(
            help="Class of annotations that do not name one.",
            show_default="they are an error",
        ),
    ] = None,
    rle: Annotated[
        Dialect | None,
        typer.Option(
            help="How a csv of run-length encoded masks counts: from the last run, or from the "
            "first pixel.",
            show_default="found out from the masks",
        ),
    ] = None,
    volumes: Annotated[
        list[Path] | None,
        typer.Option(
            help="Volume file (mhd, nii) that a csv of nodules in mm refers to; may be repeated.",
            show_default="the csv is not of volumes",
        ),
    ] = None,
    boundary_um: Annotated[
        float,
        typer.Option(
            min=0,
            help="Width in um of an extra class `boundary` between touching objects; 0: no such "
            "class.",
        ),
    ] = 0.0,
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            max=16,
            help="Points per side of a pixel that are tested to decide its class at low levels.",
        ),
    ] = 1,
    source: Annotated[
        str | None,
        typer.Option(
            help="Who drew: expert, hand, pseudo, external or review.",
            show_default="as the file says, else expert",
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Weight of these annotations in the training loss.",
            show_default="as the file says, else 1",
        ),
    ] = None,
    unlisted_empty: Annotated[
        bool,
        typer.Option(
            "--unlisted-empty",
            help="Treat slides that no annotation file names, now or earlier, as empty.",
        ),
    ] = False,
    overlapping: Annotated[
        bool,
        typer.Option(
            "--overlapping",
            help="Draw each class in a plane of its own: a pixel may have several.",
        ),
    ] = False,
    covered: Annotated[
        str,
        typer.Option(
            help="With --overlapping: classes that were annotated on these slides, as a,b; the "
            "others are ignored there.",
            show_default="all",
        ),
    ] = "",
    shard: ShardOption = None,
    json_mode: JsonFlag = False,
) -> None:
    """Draw polygons into the slides of the same names.

    Reads GeoJSON (QuPath's export, HuBMAP's form), LabelMe, COCO, CAMELYON's JSON, ASAP's XML,
    csv files of run-length encoded masks or of LUNA16 nodules (seriesuid, coordX, coordY,
    coordZ, diameter_mm), DICOM segmentations, and masks as PNG or TIFF; the content decides
    which. Several processes may draw into one collection: see --shard.

    For example:

      wsi-seg annotate store.zarr polygons/
      wsi-seg annotate store.zarr slide-1.geojson --classes gland,vessel
      wsi-seg annotate store.zarr polygons/ --classes glomerulus=gn,gs,gl,gm
      wsi-seg annotate store.zarr train.csv --default-class pneumothorax
      wsi-seg annotate store.zarr a/ --overlapping --classes a,b --covered a
      wsi-seg annotate store.zarr pred/ --name pseudo --source pseudo --weight 0.5
      wsi-seg annotate store.zarr polygons/ --shard 3/16
    """
    share = shard_of(shard)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.masks.annotate import annotate as run_annotate
        from wsi_seg.masks.reading import Reading
        from wsi_seg.slides import slide_name
        from wsi_seg.slides.volume import volume_grid
        from wsi_seg.store import open_collection

        names, merged = _classes(classes)
        report = run_annotate(
            open_collection(collection),
            annotations,
            name=name,
            reading=Reading(
                names,
                default_class,
                rle,
                source,
                weight,
                {slide_name(path): volume_grid(path) for path in volumes or []},
                boundary_um,
                samples,
                unlisted_empty,
                merged,
                overlapping,
                tuple(name.strip() for name in covered.split(",") if name.strip()),
            ),
            shard=share,
            progress=terminal.progress,
        )
        terminal.show(report)
        report.require_whole()
        terminal.next_command("wsi-seg", "train", "recipe.yaml", "--out", "run")
        return report.to_json()

    # Those that share the work hold the collection together.
    run_verb(body, json_mode, writes=collection if share is None else None)


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
