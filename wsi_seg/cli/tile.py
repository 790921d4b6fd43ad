"""Owns ``wsi-seg tile``."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.choices import CodecName
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.numbers import low_high
from wsi_seg.errors import BatchError


def tile(
    slides: Annotated[list[Path], typer.Argument(help="Slide files, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Collection to make or to add to.")] = Path(
        "store.zarr"
    ),
    codec: Annotated[
        CodecName,
        typer.Option(
            help="auto copies the slide's own compressed tiles where it can, else zstd; verbatim "
            "insists on copies; the others encode every level again."
        ),
    ] = "auto",
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="JPEG quality, for --codec jpeg.")
    ] = 90,
    distance: Annotated[
        float,
        typer.Option(min=0, max=15, help="JPEG XL distance, for --codec jpegxl; 0 is lossless."),
    ] = 0.0,
    mpp: Annotated[
        float | None,
        typer.Option(
            help="Micrometres per pixel at level 0, in place of what the files say.",
            show_default="as the files say",
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Intensity window LOW,HIGH: values (HU in CT) shown as black and as white, in CT "
            "and plain DICOM.",
            show_default="as the files say",
        ),
    ] = "",
    workers: Annotated[
        int, typer.Option(min=1, help="Number of slides that are tiled at the same time.")
    ] = 2,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Folder of annotation files, named like the slides, to draw into them.",
            show_default="nothing is drawn",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare samples with the slides afterwards.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make stores again that exist.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Turn slides into a collection of pyramids with tissue masks.

    Run it again after an interruption and it continues where it stopped.

    For example:

      wsi-seg tile slides/ --out store.zarr
      wsi-seg tile slides/ --annotations polygons/ --verify
      wsi-seg tile ct/ --window=-160,240
    """
    shown = low_high(window)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ingest.plan import Codec
        from wsi_seg.ingest.run import tile_slides
        from wsi_seg.ingest.verify import verify_slides
        from wsi_seg.masks.annotate import annotate_collection
        from wsi_seg.slides.window import Opening, Window
        from wsi_seg.store import open_collection

        report = tile_slides(
            slides,
            out,
            codec=Codec(codec, quality, distance),
            opening=Opening(mpp, None if shown is None else Window(*shown)),
            overwrite=overwrite,
            workers=workers,
            progress=terminal.progress,
        )
        terminal.say(str(report))
        summary, failures = asdict(report), dict(report.failures)
        if verify:
            with _collected(failures):
                checked = verify_slides(
                    slides,
                    open_collection(out),
                    except_for=report.failures,
                    progress=terminal.progress,
                )
                pixels = sum(v.pixels for v in checked) / 1e6
                terminal.say(f"verified {pixels:.1f} million pixels: all the same")
                summary["verified"] = [asdict(v) for v in checked]
        if annotations is not None:
            with _collected(failures):
                drawn = annotate_collection(
                    open_collection(out), [annotations], progress=terminal.progress
                )
                terminal.say("\n".join(drawn.lines()))
                summary["annotations"] = asdict(drawn)
        if failures:
            total = {slide.name for slide in report.slides} | set(failures)
            raise BatchError(failures, done=len(total) - len(failures))
        terminal.next_command("wsi-seg", "infer", out, "--overlap", "0.5")
        return summary

    run_verb(body, json_mode, writes=out, makes=True)


@contextlib.contextmanager
def _collected(failures: dict[str, str]) -> Iterator[None]:
    """Keep what failed in a step for the end; the next step is for the slides that are done."""
    try:
        yield
    except BatchError as error:
        failures |= {**error.failures, **failures}
