"""Owns ``wsi-seg verify``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def verify(
    store: Annotated[
        Path, typer.Argument(help="Collection made by `wsi-seg tile` or `wsi-seg infer`.")
    ],
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine", help="Move damaged stores aside; then make them anew by the same verb."
        ),
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Find damage: compare every file with the digest taken when it was written.

    Metadata, shard indices and completeness are checked too. The exit code is 1 if anything is
    wrong. To compare a store with its slide, use `wsi-seg tile --verify`.

    For example:

      wsi-seg verify store.zarr
      wsi-seg verify pred.zarr --quarantine
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.store import open_collection
        from wsi_seg.store.audit import audit_collection

        audit = audit_collection(
            open_collection(store), quarantine=quarantine, progress=terminal.progress
        )
        terminal.say(str(audit))
        for name, path in audit.quarantined.items():
            terminal.say(f"{name} is now {path}")
        audit.require_sound()
        return {"stores": audit.sound, "files": audit.files, "bytes": audit.nbytes}

    run_verb(body, json_mode, writes=store if quarantine else None)
