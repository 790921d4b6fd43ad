"""Owns ``wsi-seg doctor``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb

# Behind each tick three spaces: texts start in the same column as without a terminal.
_TICKS: Mapping[Literal["ok", "note", "bad"], str] = {
    "ok": typer.style("✓", fg="green") + "   ",
    "note": typer.style("!", fg="yellow") + "   ",
    "bad": typer.style("✗", fg="red", bold=True) + "   ",
}


def doctor(
    folder: Annotated[
        Path, typer.Argument(help="Folder where stores and predictions are or will be.")
    ] = Path(),
    json_mode: JsonFlag = False,
) -> None:
    """Say what works on this machine, and what infer would choose.

    Looks at libraries, processor, memory and GPU, tries decoders, and writes a few files in the
    folder, which it removes. The exit code is 1 if something needed does not work.

    For example:

      wsi-seg doctor
      wsi-seg doctor /shared/slides --json > machine.json
    """

    def body(terminal: Terminal) -> dict[str, object]:
        terminal.progress.note("looking")
        from wsi_seg.doctor import examine

        found = examine(folder)
        terminal.say("\n".join(found.lines(_TICKS) if terminal.is_live else found.lines()))
        status = {"status": "done" if found.works else "failed"}
        return status | found.to_json()

    run_verb(body, json_mode)
