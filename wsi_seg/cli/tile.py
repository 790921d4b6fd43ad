"""Owns ``wsi-seg tile``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.batch import require_none
from wsi_seg.choices import CodecName, NamesBy
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.numbers import low_high
from wsi_seg.cli.options import BoxOption, ShardOption, inside_of, shard_of
from wsi_seg.errors import ConfigError


def tile(
    slides: Annotated[
        list[Path], typer.Argument(help="Slide files, folders of them, or object store addresses.")
    ],
    out: Annotated[Path, typer.Option(help="Collection to create or to add to.")] = Path(
        "store.zarr"
    ),
    codec: Annotated[
        CodecName,
        typer.Option(
            help="auto copies the slide's compressed tiles if possible, else uses zstd; verbatim "
            "requires copies; the others re-encode every level."
        ),
    ] = "auto",
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality of encoded levels.")
    ] = 90,
    distance: Annotated[
        float,
        typer.Option(min=0, max=15, help="JPEG XL distance, for --codec jpegxl; 0 is lossless."),
    ] = 0.0,
    mpp: Annotated[
        float | None,
        typer.Option(
            help="Micrometres per pixel at level 0, overriding the files.",
            show_default="that of the files",
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Intensity window LOW,HIGH: values (HU in CT) mapped to black and to white, in CT "
            "and plain DICOM.",
            show_default="that of the files",
        ),
    ] = "",
    scene: Annotated[
        str | None,
        typer.Option(
            help="Number, from 1, or name of the image to read from files with several.",
            show_default="the only one",
        ),
    ] = None,
    icc: Annotated[
        bool,
        typer.Option("--icc", help="Convert colours to sRGB by the ICC profile of each file."),
    ] = False,
    names: Annotated[
        NamesBy,
        typer.Option(
            help="Names of slides: file names, or file names with folders, to distinguish files of "
            "the same name."
        ),
    ] = "stem",
    only: Annotated[
        str | None,
        typer.Option(
            help="Slides to tile: a pattern of names, such as case-1*, or a csv file with a column "
            "slide and optionally a column mpp, which overrides --mpp per slide.",
            show_default="all",
        ),
    ] = None,
    inside: Annotated[
        str | None,
        typer.Option(
            help="Part of each slide to copy: a GeoJSON file of polygons.",
            show_default="whole slides",
        ),
    ] = None,
    bbox: BoxOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of slides to tile concurrently.")] = 2,
    stage: Annotated[
        Path | None,
        typer.Option(
            help="Folder for temporary copies of slides from object stores, at most two at a time.",
            show_default="the system's temporary folder",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Folder of annotation files, named like the slides, to rasterize.",
            show_default="no annotations",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare samples with the source slides afterwards.")
    ] = False,
    shard: ShardOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing stores.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Convert slides to OME-Zarr pyramids with tissue masks.

    If interrupted, run the command again to continue. Several processes may tile into one
    collection: see --shard.

    For example:

      wsi-seg tile slides/ --out store.zarr
      wsi-seg tile slides/ --annotations polygons/ --verify
      wsi-seg tile ct/ --window=-160,240
      wsi-seg tile slides/ --only trial.csv
      wsi-seg tile s3://bucket/slides/ --out s3://bucket/store.zarr
      wsi-seg tile slides/ --shard 3/16
      wsi-seg tile case-1.svs --bbox 2000,1000,8192,8192
    """
    shown = low_high(window)
    share = shard_of(shard)
    if share is not None and annotations is not None:
        raise typer.BadParameter(
            "got --annotations with --shard; run `wsi-seg annotate` after all slides are tiled"
        )
    if verify and (inside or bbox):
        raise typer.BadParameter("got --verify with a part of slides; it compares whole slides")

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.files.object_path import object_path
        from wsi_seg.ingest.names import name_slides
        from wsi_seg.ingest.plan import Codec
        from wsi_seg.ingest.run import tile_slides
        from wsi_seg.ingest.verify import verify_slides
        from wsi_seg.masks.annotate import annotate
        from wsi_seg.selection import Selection
        from wsi_seg.slides.window import OpenOptions, Window
        from wsi_seg.store import open_collection

        some = None if only is None else Selection.parse(only)
        found = name_slides(slides, names, only=some)
        if verify and (remote := next((one for one in found.names if object_path(one)), None)):
            raise ConfigError(
                f"got --verify and {remote}; expected slides of this machine, which can be read "
                "again; `wsi-seg verify` compares stored files with their checksums instead"
            )
        found = replace(found, inside=inside_of(inside, bbox), shard=share)
        report = tile_slides(
            found,
            out,
            codec=Codec(codec, quality, distance),
            opening=OpenOptions(mpp, None if shown is None else Window(*shown), scene, icc),
            overwrite=overwrite,
            workers=workers,
            stage=stage,
            progress=terminal.progress,
        )
        terminal.show(report)
        summary, failures = report.to_json(), dict(report.failures)
        if verify:
            others = set(found.names.values()) - {slide.name for slide in report.slides}
            checked = verify_slides(
                found,
                open_collection(out),
                except_for=others,
                progress=terminal.progress,
            )
            terminal.show(checked)
            summary["verified"] = checked.to_json()["slides"]
            failures = {**checked.failures, **failures}
        if annotations is not None:
            drawn = annotate(open_collection(out), [annotations], progress=terminal.progress)
            terminal.show(drawn)
            summary["annotations"] = drawn.to_json()
            failures = {**drawn.failures, **failures}
        done = {slide.name for slide in report.slides} - set(failures)
        require_none(failures, done=len(done))
        terminal.next_command("wsi-seg", "infer", out, "--overlap", "0.5")
        return summary

    # Processes with a share use a shared lock instead.
    run_verb(body, json_mode, writes=out if share is None else None, makes=True, anywhere=True)
