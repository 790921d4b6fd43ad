"""Owns ``wsi-seg stats``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def stats(
    collection: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Training collection of a model; reports slides that look different from it.",
            show_default="no comparison",
        ),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Measure the colours of slides, and find outliers.

    Check this before applying a model to slides of another laboratory or scanner. Values are means
    over the tissue in L*a*b*: lightness, green to red, blue to yellow.

    For example:

      wsi-seg stats store.zarr
      wsi-seg stats new.zarr --compare store.zarr
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.sampling.drift import FIGURES, compare_looks, measure_looks
        from wsi_seg.store import open_collection

        found = measure_looks(open_collection(collection), progress=terminal.progress)
        terminal.table(("slide", *FIGURES, "mpp"), found.rows())
        values = found.to_json()
        if compare is not None:
            others = measure_looks(open_collection(compare), progress=terminal.progress)
            drift = compare_looks(found, others)
            terminal.say("\n".join(drift.lines()))
            values |= drift.to_json()
        found.require_whole()
        terminal.next_command("wsi-seg", "infer", collection)
        return values

    run_verb(body, json_mode)
