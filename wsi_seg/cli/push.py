"""Owns ``wsi-seg push``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def push(
    file: Annotated[Path, typer.Argument(help="Model: .safetensors, .onnx or .pt2.")],
    address: Annotated[str, typer.Argument(help="Repository: hf://OWNER/NAME[@BRANCH].")],
    licence: Annotated[
        str, typer.Option("--license", help="SPDX identifier of the model's licence.")
    ] = "other",
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Push a model and its page to the Hugging Face hub.

    The page is a README with the model card, its scores, and training curves if metrics.csv is next
    to the model. `--checkpoint hf://OWNER/NAME@REVISION` downloads it. The account is that of
    HF_TOKEN or of `hf auth login`.

    For example:

      wsi-seg push run/best.safetensors hf://lab/nuclei
      wsi-seg push m.onnx hf://lab/nuclei@v2 --license cc-by-4.0 --public
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.reporting.push import push_model

        terminal.progress.note("pushing the model")
        report = push_model(file, address, licence=licence, public=public)
        terminal.say("\n".join(report.lines()))
        terminal.next_command("wsi-seg", "infer", "--checkpoint", report.address)
        return report.to_json()

    run_verb(body, json_mode)
