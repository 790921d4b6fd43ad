"""A foreign torch module and its exported files, against their bare loops.

The module is a plain U-Net of torch layers. End-to-end inference of a synthetic slide alternates
with a bare loop of predictions on batches of the same shape, in float32. Run it alone:
``python benchmarks/bench_module.py [--json]``; on a GPU with ``--device cuda --batch 32
--side 12288``.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_gpu import make_slide, synchronise
from measure import Ratio, Results, in_turn, medians
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.models import ModelCard
from wsi_seg.models.foreign import open_network
from wsi_seg.store import Collection, open_collection


class Unknown(nn.Module):
    """U-Net with two levels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down = _layers(3, width)
        self.deep = _layers(width, 2 * width)
        self.up = _layers(3 * width, width)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        fine = self.down(images)
        coarse = self.deep(nn.functional.max_pool2d(fine, 2))
        enlarged = nn.functional.interpolate(coarse, scale_factor=2.0)
        logits: torch.Tensor = self.head(self.up(torch.cat([fine, enlarged], dim=1)))
        return logits


def _layers(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, default=2560, help="of the painted slide")
    parser.add_argument("--seconds", type=float, default=5, help="of each bare loop")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    make_slide(folder, options.side, quick=False)
    slides = open_collection(folder / f"store{options.side}.zarr")
    torch.manual_seed(0)
    network = Unknown().eval()
    any_size = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    example = torch.randn(2, 3, options.tile, options.tile)
    exported = torch.export.export(network, (example,), dynamic_shapes=(any_size,))
    torch.export.save(exported, folder / "net.pt2")
    file = open_network(folder / "net.pt2", torch.device(options.device))
    bare_module = copy.deepcopy(network).to(options.device)
    works: dict[str, Callable[[int], float]] = {
        "module": lambda turn: end_to_end(network, slides, folder / f"m{turn}.zarr", options),
        "module, bare": lambda _: bare(bare_module, options),
        "file": lambda turn: end_to_end(
            folder / "net.pt2", slides, folder / f"f{turn}.zarr", options
        ),
        "file, bare": lambda _: bare(file, options),
    }
    rates = in_turn(works, options.repeats)
    ratios = {
        f"{name} / {name}, bare": Ratio.of(rates[name], rates[f"{name}, bare"])
        for name in ("module", "file")
    }
    return Results(ratios, medians(rates, "tiles/s", 2))


def end_to_end(
    model: nn.Module | Path, slides: Collection, out: Path, options: argparse.Namespace
) -> float:
    """Return tiles per second from the store to the finished prediction."""
    card = ModelCard(
        classes=ClassTable.named(["thing"]), mpp=None, tile_px=options.tile, mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )  # fmt: skip
    chosen = InferOptions(
        overlap=0.5,
        batch=options.batch,
        precision="fp32",
        device=options.device,
        skip_background=False,
    )
    report = infer(slides, model, out, chosen, card=card)
    return report.tiles / report.seconds


def bare(network: nn.Module, options: argparse.Namespace) -> float:
    """Return tiles per second of a loop that predicts the same batch repeatedly."""
    images = torch.rand(options.batch, 3, options.tile, options.tile, device=options.device)
    with torch.no_grad():
        network(images).sigmoid()  # kernels are chosen
        synchronise(options)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < options.seconds:
            network(images).sigmoid()
            synchronise(options)
            count += options.batch
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
