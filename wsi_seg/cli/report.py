"""Owns ``wsi-seg report``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def report(
    target: Annotated[
        Path, typer.Argument(help="Collection made by `wsi-seg infer`, or folder of a run.")
    ],
    store: Annotated[
        Path | None, typer.Option(help="Collection of the slides, for pictures and scores.")
    ] = None,
    truth: Annotated[str, typer.Option(help="Label that counts as the truth.")] = "annotations",
    run: Annotated[
        Path | None, typer.Option(help="Run that made the model, for its training curves.")
    ] = None,
    marks: Annotated[
        Path | None, typer.Option(help="csv of marks in mm, for the FROC curve (with --places).")
    ] = None,
    places: Annotated[
        Path | None, typer.Option(help="csv of the true places in mm; see `wsi-seg froc`.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("report.html"),
    json_mode: JsonFlag = False,
) -> None:
    """Write one HTML file about a prediction or a run, to read, print and send on.

    For example:

      wsi-seg report run/
      wsi-seg report pred.zarr --store store.zarr --run run/ --out report.html
    """
    if (marks is None) != (places is None):
        raise typer.BadParameter("--marks and --places go together")

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.report.write import ReportSources, write_report

        written = write_report(
            ReportSources(
                target, slides=store, truth=truth, run=run, candidates=marks, findings=places
            ),
            out,
            progress=terminal.progress,
        )
        terminal.say("\n".join(written.lines()))
        return written.to_json()

    run_verb(body, json_mode)
