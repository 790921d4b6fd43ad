"""Owns ``wsi-seg infer``."""

import enum
from pathlib import Path
from typing import Annotated, Literal

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
    FP16 = "fp16"


class CompileName(enum.StrEnum):
    """Whether networks are compiled before they run."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class SaveName(enum.StrEnum):
    """What is written of a prediction."""

    AUTO = "auto"
    PROBABILITIES = "probabilities"
    LABELS = "labels"
    BOTH = "both"


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
            "Default: run/ensemble.yaml, else the newest .safetensors file under run/, else the "
            "model of nuclei in H&E that comes with wsi-seg."
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
        str,
        typer.Option(
            help="Fraction that neighbouring tiles share, 0 to 0.9; or adaptive: first none, then "
            "half a tile where borders are unsure."
        ),
    ] = "0.5",
    tile: Annotated[
        int | None, typer.Option(help="Tile side in px at the model's mpp; default: the model's.")
    ] = None,
    blend: Annotated[
        BlendName, typer.Option(help="How overlapping tiles merge.")
    ] = BlendName.GAUSSIAN,
    tta: Annotated[
        TtaName, typer.Option(help="Average over 1, 2, 4 or 8 flips and quarter turns.")
    ] = TtaName.NONE,
    batch: Annotated[
        str, typer.Option(help="Tiles per forward pass, or auto: what suits device and memory.")
    ] = "auto",
    max_ram: Annotated[
        str | None,
        typer.Option(help="Memory a process may take, such as 4GB; parts are chosen to fit."),
    ] = None,
    precision: Annotated[
        PrecisionName,
        typer.Option(help="auto is bf16 where the hardware has it, fp16 on older GPUs, else fp32."),
    ] = PrecisionName.AUTO,
    compiled: Annotated[
        CompileName,
        typer.Option(
            "--compile",
            help="Compile the network first (about a minute once, then seconds): twice as fast on "
            "GPUs. auto: on a GPU, where the tiles planned are worth it.",
        ),
    ] = CompileName.AUTO,
    readers: Annotated[
        int, typer.Option(help="Reads at a time; 0 is the cores less two, at least two.")
    ] = 0,
    save: Annotated[
        SaveName,
        typer.Option(
            help="probabilities, labels or both; auto is both up to 4 classes, else labels."
        ),
    ] = SaveName.AUTO,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    skip_background: Annotated[
        bool, typer.Option("--skip-background/--no-skip", help="Leave out tiles without tissue.")
    ] = True,
    allow_mpp_mismatch: Annotated[
        bool,
        typer.Option("--allow-mpp-mismatch", help="Accept slides of unknown or too coarse mpp."),
    ] = False,
    mpp: Annotated[
        float | None,
        typer.Option(help="Read at this mpp; within 20 % of the model's, or see the option above."),
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="Read this level as it is; checked as --mpp is.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be done, and stop.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(help="local:N, cuda[:N], slurm[:N], tcp://HOST:PORT; default: this process."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Predict anew; an old prediction stays until the new is whole."
        ),
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Predict every slide of a collection, seamlessly, in bounded memory.

    Run it again after an interruption and it continues with the first unfinished strip. Tiles that
    cannot be read are left at 0 and named; the exit code is then 1.

    For example:

      wsi-seg infer --overlap 0.5
      wsi-seg infer store.zarr --checkpoint run/best.safetensors --out pred.zarr
      wsi-seg infer --max-ram 4GB --plan
      wsi-seg infer --checkpoint run/ensemble.yaml --combine vote
    """

    def body(terminal: Terminal) -> dict[str, object]:
        terminal.progress.note("starting")
        from wsi_seg.infer.memory import parse_bytes
        from wsi_seg.infer.output import begun_settings
        from wsi_seg.infer.plan import InferOptions
        from wsi_seg.infer.run import infer_collection
        from wsi_seg.infer.run_plan import plan_run
        from wsi_seg.predict.ensemble import newest_model, read_model
        from wsi_seg.store import open_collection

        options = InferOptions(
            overlap=_overlap(overlap),
            tile_px=tile,
            blend=blend.value,
            tta=tta.value,
            batch=_batch(batch),
            device=device,
            precision=precision.value,
            skip_background=skip_background,
            allow_mpp_mismatch=allow_mpp_mismatch,
            compiled=compiled.value,
            readers=readers,
            save=save.value,
            mpp=mpp,
            level=level,
            max_ram=None if max_ram is None else parse_bytes(max_ram),
        )
        collection = open_collection(store)
        files = checkpoint or [newest_model(Path("run"))]
        model = read_model(files, None if combine is None else combine.value)
        if plan:
            stores = [collection[name] for name in collection.names()]
            begun = {} if overwrite else begun_settings(stores, out)
            planned = plan_run(stores, model, options, begun=begun)
            terminal.say("\n".join([f"model {file}" for file in files] + planned.lines()))
            planned.require_whole()
            return planned.to_json()
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
        report.require_whole()
        return report.to_json() | {"out": out}

    run_verb(body, json_mode, writes=None if plan else out, makes=True, anew=overwrite)


def _overlap(word: str) -> float | Literal["adaptive"]:
    """Read a fraction, or the word adaptive."""
    if word == "adaptive":
        return "adaptive"
    try:
        return float(word)
    except ValueError:
        raise typer.BadParameter(
            f"got --overlap {word!r}; expected adaptive or a number from 0 to 0.9"
        ) from None


def _batch(word: str) -> int:
    """Tiles per forward pass; 0 where they are to be chosen."""
    if word == "auto":
        return 0
    if not word.isdecimal() or int(word) == 0:
        raise typer.BadParameter(f"got --batch {word!r}; expected auto or a number of 1 or more")
    return int(word)
