"""Owns ``wsi-seg import-weights``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def import_weights(
    source: Annotated[Path, typer.Argument(help="Weights file: .pth, .pt, .ckpt or .bin.")],
    card: Annotated[
        Path,
        typer.Option(help="Model card: JSON as written by `wsi-seg train` next to a checkpoint."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to write.", show_default="the source as .safetensors"),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Convert weights of other programs to a checkpoint.

    Code in the weights file is never run, and files that contain more than tensors are rejected.
    The card describes the network.

    For example:

      wsi-seg import-weights model.pth --card model.json
      wsi-seg import-weights fold0.ckpt --card unet.json --out fold0.safetensors
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.models.convert import convert_checkpoint

        target = out or source.with_suffix(".safetensors")
        stated = convert_checkpoint(source, card, target)
        terminal.say(f"{target}: {stated.architecture} with {stated.encoder}")
        terminal.next_command("wsi-seg", "infer", "--checkpoint", target)
        return {"checkpoint": str(target), "classes": list(stated.classes.names)}

    run_verb(body, json_mode)
