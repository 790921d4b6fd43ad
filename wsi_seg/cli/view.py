"""Owns ``wsi-seg view``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def view(
    store: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    prediction: Annotated[
        Path | None, typer.Argument(help="Collection made by `wsi-seg infer`.")
    ] = None,
    truth: Annotated[str, typer.Option(help="Label that counts as the truth.")] = "annotations",
    review: Annotated[
        Path | None, typer.Option(help="Folder for reviews; default: review/ beside the store.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="No review: write nothing at all.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8123,
    json_mode: JsonFlag = False,
) -> None:
    """Look at slides, predictions and truth in a browser, and review what was found.

    Serves a page from this machine; stores are only read. Stop it with Ctrl-C.

    For example:

      wsi-seg view store.zarr
      wsi-seg view store.zarr pred.zarr --truth annotations
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.store import open_collection
        from wsi_seg.viewer.serve import ViewOptions, serve

        folder = None if read_only else review or store.parent / "review"
        shown: list[str] = []

        def ready(address: str) -> None:
            shown.append(address)
            terminal.say(f"Open {address}")
            if folder is not None:
                terminal.say(f"Reviews are kept in {folder}")
                terminal.next_command("wsi-seg", "annotate", store, folder, "--name", "review")

        serve(
            open_collection(store),
            None if prediction is None else open_collection(prediction),
            truth,
            ViewOptions(host=host, port=port, review=folder),
            ready=ready,
        )
        return {"address": shown[0]}

    run_verb(body, json_mode)
