"""The engine on a GPU, in one call: checked against the CPU, then measured against its ceilings.

``python benchmarks/bench_gpu.py [--sweep] [--encoders efficientnet-b0 resnext50_32x4d] [--json]``

It needs the package and a CUDA device; without one it says so and ends well. ``--device cpu
--quick`` runs the same steps on tiny sizes, which is how it is tested. Every slide is painted and
tiled here, so decoding is real. Steps: equal results on CPU and device; bare forward passes (as
they are, channels_last, compiled) as the ceiling; whole inference against the ceiling, with the
share of each part; training against the same step on fixed tensors; sweeps over batch and tile.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import bench_train
import numpy as np
import torch
from measure import Ratio, Results, in_turn, medians
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Region
from wsi_seg.infer.band import Band
from wsi_seg.infer.members import Model
from wsi_seg.infer.output import StripTask
from wsi_seg.infer.plan import InferOptions
from wsi_seg.infer.predictor import Predictor
from wsi_seg.infer.run import infer_with
from wsi_seg.infer.source import WindowReader
from wsi_seg.models import ModelCard, NetworkSpec, build_network
from wsi_seg.models.fuse import fused
from wsi_seg.progress import Silent
from wsi_seg.store import SlideStore, open_collection
from wsi_seg.store.tile import tile_slides
from wsi_seg.testing.tissue import write_tissue_slide

# Rounding to bf16 and other kernels may move a probability of 255 steps by so much on average.
LARGEST_MEAN_STEP = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--encoders", nargs="+", default=["efficientnet-b0", "resnext50_32x4d"])
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=16_384, help="of the painted slide, in px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="also over batches and tiles")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        found = "no CUDA device here, so nothing was measured; --device cpu --quick tries the steps"
        Results(figures={"GPU": found}).show(as_json=options.json)
        return
    if options.quick:
        options.encoders, options.tile, options.batch = ["tu-mobilenetv3_small_050"], 64, 4
        options.side, options.repeats, options.no_compile = 512, 2, True
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    slide = folder / "painted.tif"
    write_tissue_slide(slide, height=options.side, width=options.side, seed=1)
    tile_slides([slide], folder / "store.zarr", progress=Silent())
    (store,) = open_collection(folder / "store.zarr")
    results = Results(figures={"device": device_name(options), "torch": torch.__version__})
    for encoder in options.encoders:
        network = build_network(NetworkSpec("Unet", encoder, 3, 1)).eval()
        card = card_of(encoder, options.tile)
        (folder / encoder).mkdir()
        found = checked(network, card, store, folder / encoder, options)
        found |= inference(network, card, store, folder / encoder, options)
        found |= training(encoder, folder / encoder, options)
        if options.sweep:
            found |= sweeps(network, encoder, options)
        results |= Results(
            {f"{encoder}, {name}": ratio for name, ratio in found.ratios.items()},
            {f"{encoder}, {name}": value for name, value in found.figures.items()},
        )
    return results


def device_name(options: argparse.Namespace) -> str:
    cuda = options.device.startswith("cuda")
    return torch.cuda.get_device_name() if cuda else options.device


def card_of(encoder: str, tile: int) -> ModelCard:
    return ModelCard(
        architecture="Unet",
        encoder=encoder,
        in_channels=3,
        classes=ClassTable.named(["thing"]),
        mpp=None,
        tile_px=tile,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def checked(
    network: nn.Module, card: ModelCard, store: SlideStore, out: Path, options: argparse.Namespace
) -> Results:
    """Compare some tiles on the device with fp32 on the CPU; stop where they differ."""
    side = options.tile
    tiles = np.stack([
        store.image.read(Region(level=0, y=y, x=y, height=side, width=side))
        for y in np.linspace(0, options.side - side, 4).astype(int).tolist()
    ])  # fmt: skip
    exact = Predictor(network, card, device="cpu", precision="fp32").predict(tiles)
    steps = {}
    for precision in ("fp32", "bf16"):
        fast = Predictor(network, card, device=options.device, precision=precision).predict(tiles)
        difference = float((fast.cpu() - exact).abs().float().mean()) / 16
        if difference > LARGEST_MEAN_STEP:
            raise SystemExit(f"{precision} on {options.device} differs by {difference:.2f} / 255")
        steps[f"{precision} against the CPU in fp32, mean difference, 1/255"] = round(difference, 4)
    return Results(figures=steps)


def inference(
    network: nn.Module, card: ModelCard, store: SlideStore, out: Path, options: argparse.Namespace
) -> Results:
    """Whole inference against bare forward passes on tensors that stay on the device."""
    compiles = [False] if options.no_compile else [False, True]
    shares: dict[str, list[float]] = {}
    use: list[float] = []

    def whole(turn: int, compiled: bool) -> float:
        chosen = InferOptions(
            overlap=0.5,
            batch=options.batch,
            device=options.device,
            precision="bf16",
            compiled=compiled,
        )
        model, target = Model.of(network, card), out / f"pred{turn}{compiled}.zarr"
        with parts() as spent:
            report = infer_with(model, [store], target, chosen, progress=Silent())
        if not compiled:
            use.append(report.device_use)
            for name, seconds in vars(spent).items():
                shares.setdefault(name, []).append(seconds / report.seconds)
        return report.tiles_per_second

    works = {}
    for compiled in compiles:
        word = "compiled, " if compiled else ""
        works[f"{word}end to end"] = lambda turn, c=compiled: whole(turn, c)
        for layout in ("channels_last",) if compiled else ("channels_last", "contiguous"):
            forward = bare(network, layout, compiled, options)
            works[f"{word}bare forward, {layout}"] = lambda _, f=forward: f()
    works["transfer to the device"] = lambda _: transfer(options)
    found = in_turn(works, options.repeats, warm=1)
    ratios = {
        "transfer, share of a bare forward pass": Ratio.of(
            found["bare forward, channels_last"], found["transfer to the device"]
        )
    }
    for compiled in compiles:
        word = "compiled, " if compiled else ""
        ceiling = found[f"{word}bare forward, channels_last"]
        ratios[f"{word}end to end / bare forward"] = Ratio.of(found[f"{word}end to end"], ceiling)
    ratios["device use"] = Ratio.of(use, [1.0] * len(use))
    for name, part in shares.items():
        ratios[f"{name}, share of the time of its thread"] = Ratio.of(part, [1.0] * len(part))
    return Results(ratios, medians(found, "tiles/s"))


@contextmanager
def parts() -> Iterator[SimpleNamespace]:
    """Count the seconds that calls of reading (two threads), blending and writing take.

    On a GPU blending is only begun by its call; what it takes there is part of the device's use.
    """
    spent = SimpleNamespace(reading=0.0, blending=0.0, writing=0.0)
    places = [(WindowReader, "read", "reading"), (Band, "add", "blending")]
    places += [(StripTask, "write", "writing")]
    real = [getattr(owner, name) for owner, name, _ in places]

    def timed(call: object, name: str) -> object:
        def run(*arguments: object) -> object:
            started = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                setattr(spent, name, getattr(spent, name) + time.perf_counter() - started)

        return run

    for (owner, name, kind), call in zip(places, real, strict=True):
        setattr(owner, name, timed(call, kind))
    try:
        yield spent
    finally:
        for (owner, name, _), call in zip(places, real, strict=True):
            setattr(owner, name, call)


def bare(
    network: nn.Module,
    layout: str,
    compiled: bool,
    options: argparse.Namespace,
    *,
    batch: int = 0,
    tile: int = 0,
) -> object:
    """Bf16 forward passes of one batch that stays on the device; gives tiles per second."""
    batch, tile = batch or options.batch, tile or options.tile
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    fast = fused(network, 3).to(options.device, torch.bfloat16).to(memory_format=form)
    run = torch.compile(fast) if compiled else fast
    images = torch.rand(batch, 3, tile, tile, device=options.device, dtype=torch.bfloat16)
    images = images.to(memory_format=form)

    @torch.inference_mode()
    def rate() -> float:
        run(images)
        synchronise(options)
        started, rounds = time.perf_counter(), 2 if options.quick else 20
        for _ in range(rounds):
            run(images)
        synchronise(options)
        return rounds * batch / (time.perf_counter() - started)

    return rate


def transfer(options: argparse.Namespace) -> float:
    """Tiles per second from pageable memory to the device, as the engine sends them."""
    tiles = torch.zeros(options.batch, options.tile, options.tile, 3, dtype=torch.uint8)
    cuda = options.device.startswith("cuda")
    started, rounds = time.perf_counter(), 10
    for _ in range(rounds):
        (tiles.pin_memory() if cuda else tiles.clone()).to(options.device, non_blocking=True)
    synchronise(options)
    return rounds * options.batch / (time.perf_counter() - started)


def synchronise(options: argparse.Namespace) -> None:
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def training(encoder: str, folder: Path, options: argparse.Namespace) -> Results:
    """Training from slides against the same step on fixed tensors; see ``bench_train.py``."""
    chosen = argparse.Namespace(
        encoder=encoder,
        patch=options.tile,
        batch=4 if options.quick else 16,
        patches=16 if options.quick else 1600,
        workers=0 if options.quick else 12,
        augment="light",
        repeats=options.repeats,
    )
    found = bench_train.measure(chosen, folder)
    return Results(
        {f"training, {name}": ratio for name, ratio in found.ratios.items()},
        {f"training, {name}": value for name, value in found.figures.items()},
    )


def sweeps(network: nn.Module, encoder: str, options: argparse.Namespace) -> Results:
    """Bare forward passes over batches and tiles: where the device is full."""
    figures = {}
    for tile in (options.tile,) if options.quick else (256, 512, 1024):
        for batch in (1, 4) if options.quick else (1, 4, 16, 64, 128):
            if batch * tile**2 > 2**25:
                continue
            rate = bare(network, "channels_last", False, options, batch=batch, tile=tile)
            mpx = statistics.median(rate() for _ in range(3)) * tile**2 / 1e6
            figures[f"bare forward, tile {tile}, batch {batch}, Mpx/s"] = round(mpx, 1)
    return Results(figures=figures)


if __name__ == "__main__":
    main()
