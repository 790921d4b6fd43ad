"""The inference engine on a GPU: end to end, against bare forward passes and against MONAI.

``python benchmarks/bench_gpu.py [--encoders efficientnet-b0 resnext50_32x4d] [--sides 12288 32768]
[--classes 1 16] [--precisions bf16] [--compile] [--train] [--out results.json]``

It requires the package and a CUDA device; without a device it prints a note and succeeds.
``--device cpu --quick`` runs the same steps with tiny sizes, for tests. Slides are synthetic and
tiled by the script, so decoding is real. Each line of the table is one setting: tiles/s end to end
and of the bare loop at the same batch, their ratio, the fraction of time that the device was busy,
waiting times, and CPU ms per tile of the host. MONAI, if installed, has the image on the GPU, and
neither reads nor writes.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
import torch
from measure import Ratio, Results
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Region
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.report import InferReport
from wsi_seg.inference.run import SerialExecutor, infer_with
from wsi_seg.inference.runner import RunStats
from wsi_seg.ingest.run import tile_slides
from wsi_seg.models import ModelCard, NetworkSpec, build_network
from wsi_seg.predict.device import dtype_of
from wsi_seg.predict.ensemble import Model
from wsi_seg.predict.fuse import fuse_batch_norms
from wsi_seg.predict.predictor import Predictor
from wsi_seg.progress import Silent
from wsi_seg.store import SlideStore, open_collection
from wsi_seg.testing.tissue import write_tissue_slide

# Largest mean change of probabilities in steps of 1 / 255, by rounding to bf16 or other kernels.
LARGEST_MEAN_STEP = 1.0

# Side of the synthetic image that large slides repeat.
PAINTED = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--encoders", nargs="+", default=["efficientnet-b0", "resnext50_32x4d"])
    parser.add_argument("--sides", nargs="+", type=int, default=[12_288])
    parser.add_argument("--classes", nargs="+", type=int, default=[1])
    parser.add_argument("--precisions", nargs="+", default=["bf16"])
    parser.add_argument("--compile", action="store_true", help="also measure compiled networks")
    parser.add_argument("--train", action="store_true", help="also measure training from slides")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=0, help="0: chosen by the engine")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to test the script")
    parser.add_argument("--out", type=Path, help="JSON file for the table")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        found = "no CUDA device here, so nothing was measured; --device cpu --quick tries the steps"
        Results(figures={"GPU": found}).show(as_json=options.json)
        return
    if options.quick:
        options.encoders, options.tile, options.batch = ["tu-mobilenetv3_small_050"], 64, 4
        options.sides, options.repeats, options.precisions = [512], 1, ["fp32"]
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    results = Results(figures={"device": device_name(options), "torch": torch.__version__})
    rows: list[dict[str, object]] = []
    stores = {side: make_slide(folder, side, quick=options.quick) for side in options.sides}
    for encoder, classes in product(options.encoders, options.classes):
        network = build_network(NetworkSpec("Unet", encoder, 3, classes)).eval()
        card = card_of(encoder, options.tile, classes)
        results.figures |= checked(network, card, stores[min(stores)], options)
        for precision, compiled in product(
            options.precisions, [False, True][: 1 + options.compile]
        ):
            for side, store in stores.items():
                out = folder / f"{encoder}-{classes}-{precision}-{compiled}-{side}"
                row = setting(network, card, store, out, precision, compiled, options)
                rows.append({"encoder": encoder, "classes": classes, "side": side} | row)
                print(row_text(rows[-1]), flush=True)
    if options.train:
        for encoder in options.encoders:
            (folder / f"train-{encoder}").mkdir()
            results |= training(encoder, folder / f"train-{encoder}", options)
    for row in rows:
        name = f"{row['encoder']}, {row['classes']} classes, {row['side']} px, {row['precision']}"
        name += ", compiled" if row["compiled"] else ""
        for key in ("end to end / bare", "end to end / MONAI", "device busy"):
            if isinstance(value := row.get(key), float):
                results.ratios[f"{name}: {key}"] = Ratio.once(value)
    if options.out is not None:
        table = {"device": device_name(options), "torch": torch.__version__, "rows": rows}
        options.out.write_text(json.dumps(table, indent=1) + "\n")
    return results


def row_text(row: dict[str, object]) -> str:
    """Format one line of the table."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in row.items()
    )


def device_name(options: argparse.Namespace) -> str:
    cuda = options.device.startswith("cuda")
    return torch.cuda.get_device_name() if cuda else options.device


def card_of(encoder: str, tile: int, classes: int) -> ModelCard:
    return ModelCard(
        architecture="Unet",
        encoder=encoder,
        in_channels=3,
        classes=ClassTable.named([f"class{n}" for n in range(classes)]),
        mpp=None,
        tile_px=tile,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def make_slide(folder: Path, side: int, *, quick: bool) -> SlideStore:
    """Make the store of a synthetic JPEG slide; large slides repeat a smaller image."""
    painted = min(side, PAINTED)
    first = folder / "painted.tif"
    if not first.exists():
        write_tissue_slide(first, height=painted, width=painted, seed=1)
    picture = tifffile.imread(first, level=0)
    chunk = 128 if quick else 512
    count = side // chunk

    def tiles() -> Iterator[np.ndarray]:
        for row, column in product(range(count), range(count)):
            y, x = row * chunk % painted, column * chunk % painted
            yield picture[y : y + chunk, x : x + chunk]

    slide = folder / f"slide{side}.tif"
    tifffile.imwrite(
        slide, tiles(), shape=(side, side, 3), dtype=np.uint8, tile=(chunk, chunk),
        photometric="rgb", compression="jpeg", bigtiff=True,
    )  # fmt: skip
    tile_slides([slide], folder / f"store{side}.zarr", progress=Silent())
    (store,) = open_collection(folder / f"store{side}.zarr")
    return store


def checked(
    network: nn.Module, card: ModelCard, store: SlideStore, options: argparse.Namespace
) -> dict[str, object]:
    """Compare some tiles on the device with fp32 on the CPU, and exit if they differ."""
    side, extent = options.tile, store.pyramid.extent
    tiles = torch.from_numpy(np.stack([
        store.image.read(Region(level=0, y=y, x=y, height=side, width=side))
        for y in np.linspace(0, extent.height - side, 4).astype(int).tolist()
    ]))  # fmt: skip
    exact = Predictor(network, card, device="cpu", precision="fp32").predict(tiles)
    steps: dict[str, object] = {}
    for precision in dict.fromkeys(("fp32", *options.precisions)):
        fast = Predictor(network, card, device=options.device, precision=precision)
        found = fast.predict(tiles.to(fast.device)).cpu()
        difference = float((found - exact).abs().float().mean()) / 16
        if difference > LARGEST_MEAN_STEP:
            raise SystemExit(f"{precision} on {options.device} differs by {difference:.2f} / 255")
        name = f"{card.encoder}, {len(card.classes)} classes, {precision}"
        steps[f"{name}, mean difference to the CPU in fp32, 1/255"] = round(difference, 4)
    return steps


class Counted(SerialExecutor):
    """Executor that counts the CPU seconds of predicting strips."""

    cpu = 0.0

    def run(self, outputs: list[SlideOutput], memory: MemoryPlan, *, compiled: bool) -> RunStats:
        """Predict the remaining strips of slides."""
        began = time.process_time()
        stats = super().run(outputs, memory, compiled=compiled)
        self.cpu = time.process_time() - began
        return stats


def setting(
    network: nn.Module,
    card: ModelCard,
    store: SlideStore,
    out: Path,
    precision: str,
    compiled: bool,
    options: argparse.Namespace,
) -> dict[str, object]:
    """Alternate the engine and the bare loop, and return one row of the table."""
    chosen = InferOptions(
        overlap=0.5,
        batch=options.batch,
        device=options.device,
        precision=precision,
        compiled="on" if compiled else "off",
        save="both" if len(card.classes) <= 4 else "labels",
    )
    model = Model.of(network, card)
    executor = Counted(model, chosen)
    reports: list[InferReport] = []
    bare: list[float] = []
    loop: Callable[[], float] | None = None
    for turn in range(options.repeats):
        target = out.with_name(f"{out.name}-{turn}.zarr")
        report = infer_with(model, [store], target, chosen, executor=executor, progress=Silent())
        reports.append(report)
        loop = loop or bare_loop(network, report.batch, precision, compiled, options)
        bare.append(loop())
    best = max(reports, key=lambda one: one.tiles_per_second)
    rates = [one.tiles_per_second for one in reports]
    row: dict[str, object] = {
        "precision": precision,
        "compiled": compiled,
        "batch": best.batch,
        "tiles": best.tiles,
        "end to end, tiles/s": statistics.median(rates),
        "of": [round(rate) for rate in rates],
        "bare, tiles/s": statistics.median(bare),
        "end to end / bare": statistics.median(rates) / statistics.median(bare),
        "device busy": best.shares["device"],
        "waiting for reading": best.shares["reading"],
        "waiting for writing": best.shares["writing"],
        "host CPU ms a tile": 1e3 * executor.cpu / reports[-1].tiles,
        "start s": [round(one.start_seconds, 1) for one in reports],
        "compile s": [round(one.compile_seconds, 1) for one in reports],
        "peak GB": best.peak_memory / 1e9,
        "planned GB": best.memory.total / 1e9,
        "drift": [best.label_change, best.value_change],
    }
    if not compiled and (peer := monai_rate(network, store, precision, report.batch, options)):
        row |= {"MONAI, tiles/s": peer, "end to end / MONAI": statistics.median(rates) / peer}
    return row


def bare_loop(
    network: nn.Module, batch: int, precision: str, compiled: bool, options: argparse.Namespace
) -> Callable[[], float]:
    """Return tiles per second of forward passes of one batch that stays on the device."""
    dtype = dtype_of(precision)
    fast = (
        fuse_batch_norms(network, 3).to(options.device, dtype).to(memory_format=torch.channels_last)
    )
    run = torch.compile(fast, dynamic=False) if compiled else fast
    images = torch.rand(batch, 3, options.tile, options.tile, device=options.device, dtype=dtype)
    images = images.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def rate() -> float:
        for _ in range(2):
            run(images)
        synchronise(options)
        started, rounds = time.perf_counter(), 2 if options.quick else max(4, 2000 // batch)
        for _ in range(rounds):
            run(images)
        synchronise(options)
        return rounds * batch / (time.perf_counter() - started)

    return rate


def synchronise(options: argparse.Namespace) -> None:
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def monai_rate(
    network: nn.Module,
    store: SlideStore,
    precision: str,
    batch: int,
    options: argparse.Namespace,
) -> float | None:
    """Return tiles/s of MONAI's sliding window on at most 12,288 px a side, image on the device."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return None
    side = min(store.pyramid.extent.height, 12_288)
    pixels = store.image.read(Region(level=0, y=0, x=0, height=side, width=side))
    image = torch.from_numpy(pixels).to(options.device).permute(2, 0, 1)[None].float() / 255
    model = network.to(options.device)
    tiles = (-(-(side - options.tile) // (options.tile // 2)) + 1) ** 2
    rates = []
    for _ in range(2):
        synchronise(options)
        started = time.perf_counter()
        with (
            torch.inference_mode(),
            torch.autocast(
                torch.device(options.device).type, dtype_of(precision), enabled=precision != "fp32"
            ),
        ):
            sliding_window_inference(
                image, (options.tile,) * 2, batch, model, overlap=0.5, mode="gaussian"
            )
        synchronise(options)
        rates.append(tiles / (time.perf_counter() - started))
    network.cpu()
    return max(rates)


def training(encoder: str, folder: Path, options: argparse.Namespace) -> Results:
    """Measure training from slides against the same step on tensors; see ``bench_train.py``."""
    import bench_train  # imports lightning and albumentations, which inference does not need

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
        {f"{encoder}, training, {name}": ratio for name, ratio in found.ratios.items()},
        {f"{encoder}, training, {name}": value for name, value in found.figures.items()},
    )


if __name__ == "__main__":
    main()
