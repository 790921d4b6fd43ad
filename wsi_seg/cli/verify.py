"""Owns ``wsi-seg verify``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def verify(
    collection: Annotated[
        Path, typer.Argument(help="Collection made by `wsi-seg tile` or `wsi-seg infer`.")
    ],
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine", help="Move damaged stores away, so that they can be written again."
        ),
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Find damage: compare every file with its checksum.

    Metadata, shard indices and completeness are checked, too. The exit code is 1 if anything is
    damaged. To compare a store with its source slide, use `wsi-seg tile --verify`.

    For example:

      wsi-seg verify store.zarr
      wsi-seg verify pred.zarr --quarantine
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.store import open_stores
        from wsi_seg.store.audit import audit_collection
        from wsi_seg.store.names import PREDICTION_LABEL

        stores = open_stores(collection)
        audit = audit_collection(stores, quarantine=quarantine, progress=terminal.progress)
        terminal.show(audit)
        audit.require_whole()
        predicted = any(PREDICTION_LABEL in store.label_names() for store in stores)
        verb = ("export", collection, "--geojson", "found") if predicted else ("infer", collection)
        terminal.next_command("wsi-seg", *verb)
        return audit.to_json()

    run_verb(body, json_mode, writes=collection if quarantine else None)
