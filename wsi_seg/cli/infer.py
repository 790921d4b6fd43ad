"""Owns ``wsi-seg infer``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsi_seg.choices import Blend, Compile, Mode, Precision, Save, Tta
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb, words_given
from wsi_seg.cli.options import (
    BoxOption,
    InsideOption,
    OnlyOption,
    ShardOption,
    inside_of,
    only_some,
    shard_of,
)
from wsi_seg.files.object_path import place


def infer(
    context: typer.Context,
    collection: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")] = Path(
        "store.zarr"
    ),
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help="Model file (.safetensors; .onnx or .pt2 of another program), or the YAML file of "
            "an ensemble; several are combined.",
            show_default="run/ensemble.yaml, else the newest .safetensors file under run/, else "
            "the bundled model of nuclei in H&E",
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            help="Model card of networks of other programs: YAML or JSON with classes, mpp, "
            "tile_px, mean, std and output.",
            show_default="the one in the model file, or next to it",
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Load model files that can run code, such as TorchScript (.pt)."
        ),
    ] = False,
    combine: Annotated[
        Mode | None,
        typer.Option(
            help="How to combine models: mean or weighted mean of probabilities, geometric (mean "
            "of logits), or majority vote (a tie is negative).",
            show_default="that of the ensemble file, else mean",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Collection for the predictions.")] = Path("pred.zarr"),
    overlap: Annotated[
        str,
        typer.Option(
            help="Fraction by which neighbouring tiles overlap, 0 to 0.9; or adaptive: first 0, "
            "then 0.5 where tiles disagree at their borders."
        ),
    ] = "0.5",
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of a tile in pixels at the model's mpp.", show_default="the model's own"
        ),
    ] = None,
    blend: Annotated[
        Blend, typer.Option(help="Weights of overlapping tiles; crop keeps only their centres.")
    ] = "gaussian",
    tta: Annotated[
        Tta,
        typer.Option(
            help="Test-time augmentation: average over 1, 2, 4 or 8 flips and quarter turns."
        ),
    ] = "none",
    batch: Annotated[
        str,
        typer.Option(help="Tiles per forward pass; auto chooses by device and memory."),
    ] = "auto",
    max_ram: Annotated[
        str | None,
        typer.Option(
            help="Main memory that a process may use, or all --cluster workers of a machine "
            "together, such as 4GB.",
            show_default="as much as is fastest",
        ),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Floating-point precision; auto is bf16 if the hardware supports it, fp16 on "
            "older GPUs, else fp32."
        ),
    ] = "auto",
    compiled: Annotated[
        Compile,
        typer.Option(
            "--compile",
            help="Compile the network, which takes about half a minute and makes it up to twice "
            "as fast on GPUs; auto compiles on a GPU if that saves time.",
        ),
    ] = "auto",
    readers: Annotated[
        int,
        typer.Option(help="Concurrent reads; 0 is the number of cores minus two, at least two."),
    ] = 0,
    save: Annotated[
        Literal[Save, "auto"],
        typer.Option(help="What to save; auto is both for up to 4 classes, else labels."),
    ] = "auto",
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")] = "auto",
    skip_background: Annotated[
        bool, typer.Option("--skip-background/--no-skip", help="Skip tiles that have no tissue.")
    ] = True,
    allow_mpp_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mpp-mismatch", help="Accept slides whose mpp is unknown or too coarse."
        ),
    ] = False,
    mpp: Annotated[
        float | None,
        typer.Option(
            help="Micrometres per pixel to read at, within 20 % of the model's unless a mismatch "
            "is allowed.",
            show_default="the model's own",
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            help="Pyramid level to read without resampling, 0 is the finest; checked like --mpp.",
            show_default="chosen by mpp",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and exit.")] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Workers: local:N, cuda[:N], slurm[:N[-M]] or tcp://HOST:PORT.",
            show_default="this process only",
        ),
    ] = None,
    stage: Annotated[
        Path | None,
        typer.Option(
            help="Folder for temporary copies of slides from an object store, each fetched while "
            "the previous one is predicted.",
            show_default="read slides from the object store",
        ),
    ] = None,
    shard: ShardOption = None,
    only: OnlyOption = None,
    inside: InsideOption = None,
    bbox: BoxOption = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Predict again; the old prediction is kept until the new one is complete.",
        ),
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Predict every slide, without seams, in bounded memory.

    If interrupted, run the command again to continue with the first unfinished strip. Several
    processes may predict into one collection: see --shard, and `wsi-seg status`. Tiles that cannot
    be read are set to 0 and listed, and the exit code is 1.

    For example:

      wsi-seg infer --overlap 0.5
      wsi-seg infer store.zarr --checkpoint run/best.safetensors --out pred.zarr
      wsi-seg infer --checkpoint net.onnx --card net.yaml
      wsi-seg infer --max-ram 4GB --plan
      wsi-seg infer --checkpoint run/ensemble.yaml --combine vote
      wsi-seg infer --shard 3/16
      wsi-seg infer --only "case-1*"
      wsi-seg infer s3://bucket/store.zarr --out s3://bucket/pred.zarr
      wsi-seg infer --inside tumour --plan
      wsi-seg infer --only case-1 --bbox 2000,1000,8192,8192
    """

    def body(terminal: Terminal) -> dict[str, object]:
        terminal.progress.note("starting")
        from wsi_seg.inference.memory import parse_bytes
        from wsi_seg.inference.options import InferOptions
        from wsi_seg.inference.run import infer as run_infer
        from wsi_seg.inference.run_plan import plan_inference
        from wsi_seg.inference.unfinished import unfinished_settings
        from wsi_seg.predict.ensemble import newest_model, read_model
        from wsi_seg.store import open_collection

        options = InferOptions(
            overlap=_overlap(overlap),
            tile_px=tile,
            blend=blend,
            tta=tta,
            batch=_batch(batch),
            device=device,
            precision=precision,
            skip_background=skip_background,
            allow_mpp_mismatch=allow_mpp_mismatch,
            compiled=compiled,
            readers=readers,
            save=save,
            mpp=mpp,
            level=level,
            max_ram=None if max_ram is None else parse_bytes(max_ram),
            inside=inside_of(inside, bbox),
            shard=shard_of(shard),
            stage=stage,
        )
        target = place(out)
        slides = only_some(open_collection(collection), only)
        files = checkpoint or [newest_model(Path("run"))]
        model = read_model(files, combine, card=card, trust=trust)
        if plan:
            stores = list(iter(slides))
            unfinished = {} if overwrite else unfinished_settings(stores, target)
            planned = plan_inference(stores, model, options, unfinished=unfinished, out=target)
            terminal.say("\n".join([f"model {file}" for file in files] + planned.lines()))
            planned.require_whole()
            terminal.next_command(*words_given(context, without="plan"))
            return planned.to_json()
        report = run_infer(
            slides,
            model,
            target,
            options,
            overwrite=overwrite,
            cluster=cluster,
            progress=terminal.progress,
        )
        terminal.say("\n".join([f"model {file}" for file in files] + report.lines()))
        report.require_whole()
        terminal.next_command(
            "wsi-seg", "export", target, "--slides", collection, "--geojson", "found"
        )
        return report.to_json() | {"out": target}

    run_verb(body, json_mode, overwrites=overwrite)


def _overlap(word: str) -> float | Literal["adaptive"]:
    """Parse a fraction, or the word adaptive."""
    if word == "adaptive":
        return "adaptive"
    try:
        return float(word)
    except ValueError:
        raise typer.BadParameter(
            f"got --overlap {word!r}; expected adaptive or a number from 0 to 0.9"
        ) from None


def _batch(word: str) -> int:
    """Parse the number of tiles per forward pass; 0 means auto."""
    if word == "auto":
        return 0
    if not word.isdecimal() or int(word) == 0:
        raise typer.BadParameter(f"got --batch {word!r}; expected auto or a number of 1 or more")
    return int(word)
