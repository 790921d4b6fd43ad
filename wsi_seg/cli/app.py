"""Owns the program ``wsi-seg``: which verbs it has, and the options that all of them share."""

import enum
from typing import Annotated

import typer

from wsi_seg import __version__
from wsi_seg.cli import (
    annotate,
    calibrate,
    convert,
    dedup,
    demo,
    ensemble,
    evaluate,
    export,
    froc,
    infer,
    info,
    lungs,
    marks,
    mine,
    preview,
    pseudo,
    report,
    search,
    tile,
    train,
    verify,
    view,
)
from wsi_seg.cli.console import configure_logging

app = typer.Typer(
    name="wsi-seg",
    help="Segment gigapixel slides: stores, training, seamless inference, polygons.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order in which a slide meets them; --help lists them so.
_VERBS = (
    info.info,
    tile.tile,
    annotate.annotate,
    dedup.dedup,
    lungs.lungs,
    verify.verify,
    preview.preview,
    train.train,
    infer.infer,
    evaluate.evaluate,
    ensemble.ensemble,
    marks.marks,
    froc.froc,
    calibrate.calibrate,
    search.search,
    mine.mine,
    export.export,
    view.view,
    report.report,
    pseudo.pseudo,
    convert.convert,
    demo.demo,
)
for _verb in _VERBS:
    app.command()(_verb)


class LogLevel(enum.StrEnum):
    """Least level of log records that are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsi-seg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    log_level: Annotated[
        LogLevel,
        typer.Option("--log-level", envvar="WSI_SEG_LOG_LEVEL", help="Log records to show."),
    ] = LogLevel.WARNING,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    configure_logging(log_level)


def main() -> None:
    """Run the program; the entry point of the ``wsi-seg`` script."""
    app(prog_name="wsi-seg")
