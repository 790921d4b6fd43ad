"""Owns ``wsi-seg demo``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all files of the demo.")] = Path("demo"),
    json_mode: JsonFlag = False,
) -> None:
    """Run every step on synthetic slides, and show the scores.

    Takes a few minutes on two CPU cores and needs no network access. If interrupted, run the
    command again to continue.

    For example:

      wsi-seg demo --out demo
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.demo import run_demo

        report = run_demo(out, say=terminal.say, progress=terminal.progress)
        terminal.say("\n".join(report.lines()))
        slides, found = out / "test.zarr", out / "test_pred.zarr"
        terminal.say(f"Look closer: wsi-seg view {slides} {found}")
        terminal.say(
            f"Write a report: wsi-seg report {found} --slides {slides} --run {out / 'run'}"
        )
        terminal.next_command("wsi-seg tile your/slides --out store.zarr")
        return report.to_json()

    run_verb(body, json_mode)
