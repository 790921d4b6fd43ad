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
    name: Annotated[str, typer.Option(help="Name of the label to write.")] = "annotations",
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
            help="Class of annotations without a class.",
            show_default="an error",
        ),
    ] = None,
    rle: Annotated[
        Dialect | None,
        typer.Option(
            help="Whether runs of a csv of run-length encoded masks start relative to the previous "
            "run, or at absolute pixels.",
            show_default="detected from the masks",
        ),
    ] = None,
    volumes: Annotated[
        list[Path] | None,
        typer.Option(
            help="Volume file (mhd, nii) that a csv of nodules in mm refers to; may be repeated.",
            show_default="no volumes",
        ),
    ] = None,
    boundary_um: Annotated[
        float,
        typer.Option(
            min=0,
            help="Width in um of an extra class `boundary` between touching objects; 0 adds no "
            "class.",
        ),
    ] = 0.0,
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            max=16,
            help="Samples along each side of a pixel that determine its class at coarse levels.",
        ),
    ] = 1,
    source: Annotated[
        str | None,
        typer.Option(
            help="Origin of the annotations: expert, hand, pseudo, external or review.",
            show_default="that of the file, else expert",
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Weight of these annotations in the training loss.",
            show_default="that of the file, else 1",
        ),
    ] = None,
    unlisted_empty: Annotated[
        bool,
        typer.Option(
            "--unlisted-empty",
            help="Treat slides without annotation file, now or earlier, as empty.",
        ),
    ] = False,
    overlapping: Annotated[
        bool,
        typer.Option(
            "--overlapping",
            help="Write one plane per class, so that a pixel may have several classes.",
        ),
    ] = False,
    covered: Annotated[
        str,
        typer.Option(
            help="With --overlapping: classes that were annotated on these slides, as a,b; other "
            "classes are ignored there.",
            show_default="all",
        ),
    ] = "",
    shard: ShardOption = None,
    json_mode: JsonFlag = False,
) -> None:
    """Rasterize annotations into label maps of the slides.

    Reads GeoJSON (of QuPath or HuBMAP), LabelMe, COCO, CAMELYON JSON, ASAP XML, csv files of
    run-length encoded masks or of LUNA16 nodules (seriesuid, coordX, coordY, coordZ,
    diameter_mm), DICOM segmentations, and masks as PNG or TIFF; the format is detected from the
    content. Several processes may annotate one collection: see --shard.

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

    # Processes with a share use a shared lock instead.
    run_verb(body, json_mode, writes=collection if share is None else None)


def _classes(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Parse classes, and the names that are merged into them.

    Names after ``name=``, up to the next one, are merged into that class.
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
