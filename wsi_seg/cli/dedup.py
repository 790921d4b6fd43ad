"""Owns ``wsi-seg dedup``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def dedup(
    collection: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    json_mode: JsonFlag = False,
) -> None:
    """Find duplicate slides, so that splits are free of leakage.

    Duplicates are files with the same bytes, and slides with the same image content. The groups
    are recorded in the collection; `wsi-seg train` keeps each group on one side of a split.

    For example:

      wsi-seg dedup store.zarr
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.sampling.dedup import find_duplicates, write_duplicates
        from wsi_seg.store import open_collection

        slides = open_collection(collection)
        found = find_duplicates(slides, progress=terminal.progress)
        path = write_duplicates(slides.path, found)
        terminal.say("\n".join([*found.lines(), f"wrote {path}"]))
        found.require_whole()
        terminal.next_command("wsi-seg", "train", "recipe.yaml", "--out", "run")
        return found.to_json()

    run_verb(body, json_mode, writes=collection)
