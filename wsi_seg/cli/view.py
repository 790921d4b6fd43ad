"""Owns ``wsi-seg view``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def view(
    collection: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    prediction: Annotated[
        Path | None,
        typer.Argument(help="Collection made by `wsi-seg infer`.", show_default="only the slides"),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(
            help="Another prediction to show side by side with the first.",
            show_default="one prediction",
        ),
    ] = None,
    truth: Annotated[str, typer.Option(help="Name of the ground-truth label.")] = "annotations",
    review: Annotated[
        Path | None,
        typer.Option(help="Folder for reviews.", show_default="review/ next to the collection"),
    ] = None,
    weight: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of reviewed annotations in training.")
    ] = 1.0,
    sam: Annotated[
        Path | None,
        typer.Option(
            help="ONNX decoder of a promptable model, with its encoder next to it, which outlines "
            "clicked objects.",
            show_default="disabled",
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Disable reviews, and write nothing.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback requires a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8123,
    json_mode: JsonFlag = False,
) -> None:
    """View slides and predictions in a browser, and review them.

    Starts a local web server for slides, predictions and truth; stores are only read. Stop it with
    Ctrl-C.

    For example:

      wsi-seg view store.zarr
      wsi-seg view store.zarr pred.zarr --truth annotations
      wsi-seg view store.zarr pred.zarr --other pred2.zarr
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.store import open_collection, open_predictions
        from wsi_seg.viewer.serve import ViewOptions, serve

        folder = None if read_only else review or collection.parent / "review"
        shown: list[str] = []

        def ready(address: str) -> None:
            shown.append(address)
            terminal.invite(address)
            if folder is None:
                terminal.next_command("wsi-seg", "report", prediction or "run")
            else:
                terminal.say(f"Reviews are saved to {folder}")
                terminal.next_command("wsi-seg", "annotate", collection, folder, "--name", "review")

        serve(
            open_collection(collection),
            None if prediction is None else open_predictions(prediction),
            truth,
            ViewOptions(
                host=host,
                port=port,
                review=folder,
                weight=weight,
                sam=sam,
                other=None if other is None else open_predictions(other),
            ),
            ready=ready,
        )
        return {"address": shown[0]}

    run_verb(body, json_mode)
