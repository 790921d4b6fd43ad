"""Owns ``wsi-seg dedup``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def dedup(
    store: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    json_mode: JsonFlag = False,
) -> None:
    """Find slides that are copies of each other, so that no fold parts them.

    Files with the same bytes are copies, and so are slides whose pictures are the same. The
    groups are noted in the collection; `wsi-seg train` keeps each on one side.

    For example:

      wsi-seg dedup store.zarr
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.sampling.dedup import find_duplicates, write_duplicates
        from wsi_seg.store import open_collection

        collection = open_collection(store)
        found = find_duplicates(collection, progress=terminal.progress)
        path = write_duplicates(collection.path, found)
        terminal.say(f"{found}\nnoted in {path}")
        terminal.next_command("wsi-seg", "train", "recipe.yaml", "--out", "run")
        return asdict(found)

    run_verb(body, json_mode, writes=store)
