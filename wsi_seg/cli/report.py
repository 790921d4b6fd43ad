"""Owns ``wsi-seg report``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def report(
    target: Annotated[
        Path, typer.Argument(help="Collection made by `wsi-seg infer`, or folder of a run.")
    ],
    slides: Annotated[
        Path | None,
        typer.Option(
            help="Collection of the slides, for pictures and scores.",
            show_default="without pictures and scores",
        ),
    ] = None,
    truth: Annotated[str, typer.Option(help="Name of the ground-truth label.")] = "annotations",
    run: Annotated[
        Path | None,
        typer.Option(
            help="Training run of the model, for its curves.", show_default="without curves"
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="csv of candidates in mm, for the FROC curve; needs --findings.",
            show_default="without FROC curve",
        ),
    ] = None,
    findings: Annotated[
        Path | None,
        typer.Option(
            help="csv of the true findings in mm; see `wsi-seg ct froc`.",
            show_default="without FROC curve",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    json_mode: JsonFlag = False,
) -> None:
    """Write an HTML report of a prediction or a run.

    The file includes all pictures and plots, so it can be printed and sent by mail.

    For example:

      wsi-seg report run/
      wsi-seg report pred.zarr --slides store.zarr --run run/ --out report.html
    """
    if (candidates is None) != (findings is None):
        raise typer.BadParameter("got one of --candidates, --findings; expected both or neither")

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.reporting.write import ReportSources
        from wsi_seg.reporting.write import report as run_report

        written = run_report(
            ReportSources(
                target,
                slides=slides,
                truth=truth,
                run=run,
                candidates=candidates,
                findings=findings,
            ),
            out,
            progress=terminal.progress,
        )
        terminal.say("\n".join(written.lines()))
        terminal.next_command("python", "-m", "webbrowser", out)
        return written.to_json()

    run_verb(body, json_mode)
