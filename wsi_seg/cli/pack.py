"""Owns ``wsi-seg pack``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of `wsi-seg train`.")],
    onnx: Annotated[
        Path | None, typer.Option(help="ONNX file to write (.onnx).", show_default="not written")
    ] = None,
    torch_export: Annotated[
        Path | None,
        typer.Option(help="File of torch.export to write (.pt2).", show_default="not written"),
    ] = None,
    torchscript: Annotated[
        Path | None,
        typer.Option(help="TorchScript file to write (.pt).", show_default="not written"),
    ] = None,
    bioimageio: Annotated[
        Path | None,
        typer.Option(
            help="Model archive of bioimage.io to write (.zip), for QuPath and ilastik.",
            show_default="not written",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the bioimage.io model.", show_default="derived from classes"),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(
            help="Author of the bioimage.io model; may be repeated.", show_default="unknown"
        ),
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", help="SPDX identifier of the bioimage.io model's licence.")
    ] = "CC-BY-4.0",
    json_mode: JsonFlag = False,
) -> None:
    """Export a checkpoint to formats of other programs.

    Exported models include normalisation and activation: they take batches of float32 RGB of 0 to
    255 and return probabilities. Each file is run and compared with the checkpoint; the largest
    difference is printed. `wsi-seg infer` reads the files, too.

    For example:

      wsi-seg pack run/best.safetensors --onnx m.onnx
      wsi-seg pack run/best.safetensors --bioimageio m.zip --author Me
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.exporting.bioimageio import Credits
        from wsi_seg.exporting.pack import PackTargets, pack_model

        targets = PackTargets(onnx, torch_export, torchscript, bioimageio)
        made_by = Credits(name, tuple(author or ("unknown",)), licence)
        terminal.progress.note("exporting and checking the network")
        report = pack_model(checkpoint, targets, made_by)
        terminal.say("\n".join(report.lines()))
        readable = [path for path in report.differences if path.suffix in (".onnx", ".pt2")]
        if readable:
            terminal.next_command("wsi-seg", "infer", "--checkpoint", readable[0])
        return report.to_json()

    run_verb(body, json_mode)
