"""Owns ``wsi-seg convert``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def convert(
    source: Annotated[Path, typer.Argument(help="File of weights: .pth, .pt, .ckpt or .bin.")],
    card: Annotated[
        Path, typer.Option(help="Model card: JSON like the file beside any checkpoint.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint; default: the source as .safetensors.")
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Take over weights trained elsewhere, without running code in their file.

    The card says which network it is. A file that holds more than tensors is
    refused.

    For example:

      wsi-seg convert model.pth --card model.json
      wsi-seg convert fold0.ckpt --card unet.json --out models/fold0.safetensors
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.models.convert import convert_checkpoint

        target = out or source.with_suffix(".safetensors")
        stated = convert_checkpoint(source, card, target)
        terminal.say(f"{target}: {stated.architecture} with {stated.encoder}")
        terminal.next_command("wsi-seg", "infer", "--checkpoint", target)
        return {"checkpoint": str(target), "classes": list(stated.classes.names)}

    run_verb(body, json_mode)
