"""Owns ``wsi-seg push``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def push(
    file: Annotated[Path, typer.Argument(help="Model: .safetensors, .onnx or .pt2.")],
    address: Annotated[str, typer.Argument(help="Repository: hf://OWNER/NAME[@BRANCH].")],
    licence: Annotated[
        str, typer.Option("--license", help="Licence of the model, as SPDX names it.")
    ] = "other",
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see a repository that is new.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Push a model and its page to the Hugging Face hub.

    The page is a README with the model's card, its scores, and the curves of its training where
    they are next to it. Then `--checkpoint hf://OWNER/NAME@REVISION` fetches it. The account is
    that of HF_TOKEN or of `hf auth login`.

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
