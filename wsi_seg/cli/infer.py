"""Owns ``wsi-seg infer``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


class BlendName(enum.StrEnum):
    """Ways to merge overlapping tiles."""

    GAUSSIAN = "gaussian"
    LINEAR = "linear"
    CONSTANT = "constant"
    CROP = "crop"


class TtaName(enum.StrEnum):
    """Views that are predicted and averaged."""

    NONE = "none"
    HFLIP = "hflip"
    FLIPS = "flips"
    D4 = "d4"


class PrecisionName(enum.StrEnum):
    """Arithmetic of the forward pass."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class CombineName(enum.StrEnum):
    """Ways to combine several models."""

    MEAN = "mean"
    WEIGHTED = "weighted"
    GEOMETRIC = "geometric"
    VOTE = "vote"


def infer(
    store: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")] = Path(
        "store.zarr"
    ),
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            help="Model file; several, or an ensemble's YAML file, are combined. "
            "Default: run/ensemble.yaml, else the newest .safetensors file under run/."
        ),
    ] = None,
    combine: Annotated[
        CombineName | None,
        typer.Option(
            help="How several models become one: mean or weighted mean of probabilities, "
            "geometric (mean of logits), vote (a tie is a no). Default: the file's, or mean."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Prediction collection.")] = Path("pred.zarr"),
    overlap: Annotated[
        float, typer.Option(help="Fraction that neighbouring tiles share, 0 to 0.9.")
    ] = 0.5,
    tile: Annotated[
        int | None, typer.Option(help="Tile side in px at the model's mpp; default: the model's.")
    ] = None,
    blend: Annotated[
        BlendName, typer.Option(help="How overlapping tiles merge.")
    ] = BlendName.GAUSSIAN,
    tta: Annotated[
        TtaName, typer.Option(help="Average over 1, 2, 4 or 8 flips and quarter turns.")
    ] = TtaName.NONE,
    batch: Annotated[int, typer.Option(help="Tiles per forward pass; 0 chooses.")] = 0,
    precision: Annotated[
        PrecisionName, typer.Option(help="auto is bf16 where the hardware has it.")
    ] = PrecisionName.AUTO,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    skip_background: Annotated[
        bool, typer.Option("--skip-background/--no-skip", help="Leave out tiles without tissue.")
    ] = True,
    allow_mpp_mismatch: Annotated[
        bool,
        typer.Option("--allow-mpp-mismatch", help="Accept slides of unknown or too coarse mpp."),
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(help="local:N, cuda, slurm or tcp://HOST:PORT; default: this process."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Discard predictions that exist.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Predict every slide of a collection, seamlessly, in bounded memory.

    Run it again after an interruption and it continues with the first unfinished strip.

    For example:

      wsi-seg infer --overlap 0.5
      wsi-seg infer store.zarr --checkpoint run/best.safetensors --out pred.zarr
      wsi-seg infer --checkpoint a.safetensors --checkpoint b.safetensors --combine vote
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.infer.members import newest_model, read_model
        from wsi_seg.infer.plan import InferOptions
        from wsi_seg.infer.run import infer_collection
        from wsi_seg.store import open_collection

        options = InferOptions(
            overlap=overlap,
            tile_px=tile,
            blend=blend.value,
            tta=tta.value,
            batch=batch,
            device=device,
            precision=precision.value,
            skip_background=skip_background,
            allow_mpp_mismatch=allow_mpp_mismatch,
        )
        collection = open_collection(store)
        files = checkpoint or [newest_model(Path("run"))]
        model = read_model(files, None if combine is None else combine.value)
        report = infer_collection(
            collection,
            model,
            out,
            options,
            overwrite=overwrite,
            cluster=cluster,
            progress=terminal.progress,
        )
        terminal.say("\n".join([f"model {file}" for file in files] + report.lines()))
        terminal.next_command("wsi-seg", "export", out, "--store", store, "--geojson", "polygons")
        return report.to_json() | {"out": out}

    run_verb(body, json_mode)
