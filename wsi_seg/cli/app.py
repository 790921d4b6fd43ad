"""Owns the program ``wsi-seg``: its commands and their global options."""

import sys
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from wsi_seg import __version__
from wsi_seg.cli import (
    annotate,
    calibrate,
    dedup,
    demo,
    doctor,
    ensemble,
    evaluate,
    export,
    import_weights,
    infer,
    info,
    mine,
    next_,
    pack,
    preview,
    pseudo,
    push,
    recipe,
    report,
    search,
    stats,
    status,
    tile,
    train,
    verify,
    view,
)
from wsi_seg.cli.console import INTERRUPTED, configure_logging, verb_of
from wsi_seg.cli.ct import candidates, froc, lungs
from wsi_seg.cli.help import VerbGroup, help_text

LogLevel = Literal["debug", "info", "warning", "error"]

# Headings of --help, and their commands in the order of a typical workflow.
_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Data": (info.info, tile.tile, annotate.annotate, dedup.dedup, stats.stats, verify.verify),
    "Train": (recipe.recipe, preview.preview, train.train, mine.mine, next_.next_, pseudo.pseudo),
    "Predict": (infer.infer, status.status, export.export),
    "Evaluate": (evaluate.evaluate, search.search, calibrate.calibrate, ensemble.ensemble),
    "View": (view.view, report.report),
    "Tools": (doctor.doctor, demo.demo, import_weights.import_weights, pack.pack, push.push),
}


def _group(text: str) -> typer.Typer:
    return typer.Typer(
        cls=VerbGroup,
        help=text,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # the boxes of rich would break words at 80 columns
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = _group("Segment gigapixel slides: stores, training, seamless inference, polygons.")
for _heading, _verbs in _GROUPS.items():
    for _verb in _verbs:
        app.command(verb_of(_verb), help=help_text(_verb), rich_help_panel=_heading)(_verb)

_ct = _group("CT volumes: lung masks, candidates and their FROC.")
for _verb in (lungs.lungs, candidates.candidates, froc.froc):
    _ct.command(help=help_text(_verb))(_verb)
app.add_typer(_ct, name="ct", rich_help_panel="Tools")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsi-seg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    log_level: Annotated[
        LogLevel,
        typer.Option(
            "--log-level", envvar="WSI_SEG_LOG_LEVEL", help="Lowest level of log records to show."
        ),
    ] = "warning",
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    configure_logging(log_level)


def main() -> None:
    """Run the program; the entry point of the ``wsi-seg`` script."""
    try:
        app(prog_name="wsi-seg")
    except KeyboardInterrupt:  # before the command began, which then says how to continue
        sys.exit(INTERRUPTED)
