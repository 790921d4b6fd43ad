"""Host cost of inference without the network: the whole pipeline with an instant network.

``python benchmarks/bench_flow.py [SLIDE] [--device cuda] [--side 8192] [--json]``

Reading, uploading, cutting, blending, writing and coarser levels are real; the network returns
immediately. In a second run, the work of the device is also replaced by stubs, so that the rest is
the host's work with a GPU. Both are compared with the minimum work: decoding the same source chunks
and encoding the same output chunks. CPU seconds of all threads count, not wall time.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from measure import Ratio, Results
from torch import Tensor

from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Region
from wsi_seg.inference.blend import RowSink, RowSums
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.report import InferReport
from wsi_seg.inference.run import SerialExecutor, infer_with
from wsi_seg.inference.runner import RunStats
from wsi_seg.inference.save import StripSaver
from wsi_seg.inference.source import Band, SourceRows
from wsi_seg.inference.strips import OpenStrip, StripBuilder
from wsi_seg.ingest.run import tile_slides
from wsi_seg.models import ModelCard
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.predict.predictor import PROBABILITY_STEPS
from wsi_seg.progress import Silent
from wsi_seg.store import Multiscale, SlideStore, open_collection
from wsi_seg.store.cache import ChunkCache
from wsi_seg.store.chunks import read_encoded
from wsi_seg.store.codecs import Encoding
from wsi_seg.testing.tissue import write_tissue_slide

TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--side", type=int, default=8192, help="side of the synthetic slide, in pixels"
    )
    parser.add_argument("--classes", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to test the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.side, options.repeats = 1024, 1
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder)).show(as_json=options.json)


def measure(options: argparse.Namespace, folder: Path) -> Results:
    slide = options.slide
    if slide is None:
        slide = folder / "painted.tif"
        write_tissue_slide(slide, height=options.side, width=options.side, seed=1)
    tile_slides([slide], folder / "store.zarr", progress=Silent())
    (store,) = open_collection(folder / "store.zarr")
    results = Results(figures={"device": options.device, "cores": os.cpu_count()})
    bare: list[float] = []
    spent: dict[str, list[float]] = {"stand-in": [], options.device: []}
    for turn in range(options.repeats + 1):
        for name, times in spent.items():
            out = folder / f"{name.replace(':', '')}{turn}.zarr"
            cpu, report = run(store, out, name, options)
            times.append(1e3 * cpu / report.tiles)
            results.figures[f"{name}, tiles/s"] = round(report.tiles_per_second)
        work = bare_work(store, open_collection(folder / f"stand-in{turn}.zarr")[store.name])
        bare.append(1e3 * work / report.tiles)
    for times in (bare, *spent.values()):
        del times[0]  # the first turn imports libraries and fills the disk cache
    for name in spent:
        with parts() as seconds:
            run(store, folder / f"{name.replace(':', '')}parts.zarr", name, options)
        for part, value in seconds.items():
            results.figures[f"{name}, {part}, CPU ms a tile"] = round(1e3 * value / report.tiles, 4)
    results.figures["tiles"] = report.tiles
    results.figures["bare decoding and encoding, CPU ms a tile"] = round(min(bare), 4)
    for name, times in spent.items():
        results.figures[f"{name}, CPU ms a tile"] = round(min(times), 4)
    results.ratios["host CPU a tile, stand-in / bare decoding and encoding"] = Ratio.of(
        spent["stand-in"], bare
    )
    more = [a - b for a, b in zip(spent[options.device], spent["stand-in"], strict=True)]
    results.figures[f"more on {options.device} than on the stand-in, CPU ms a tile"] = round(
        sorted(more)[len(more) // 2], 3
    )
    return results


class Counted(SerialExecutor):
    """Executor that counts CPU seconds from the first read to the last write, without planning."""

    cpu = 0.0

    def run(
        self, outputs: Sequence[SlideOutput], memory: MemoryPlan, *, compiled: bool
    ) -> RunStats:
        """Predict the remaining strips of slides."""
        began = time.process_time()
        stats = super().run(outputs, memory, compiled=compiled)
        self.cpu = time.process_time() - began
        return stats


class Instant:
    """Network that immediately returns constant probabilities."""

    def __init__(self, device: str, classes: int, batch: int) -> None:
        self.channels = classes
        ramp = torch.arange(TILE, device=device, dtype=torch.int32) * PROBABILITY_STEPS // TILE
        self._answer = ramp.expand(batch, classes, TILE, TILE)
        self.device = self._answer.device

    def predict(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return probabilities that rise from left to right."""
        return self._answer


class NoDevice:
    """Stubs of the device's work, with a fixed picture as output.

    A device writes finished rows to host memory by itself, so strips refer to the picture; copying
    it would count as work of the host.
    """

    def __init__(self) -> None:
        y, x = torch.meshgrid(torch.arange(1024), torch.arange(4096), indexing="ij")
        waves = torch.sin(y / 37) * torch.sin(x / 53) + 0.3 * torch.sin(x * y / 9000)
        self._rows = (255 * torch.sigmoid(6 * waves)).to(torch.uint8).repeat(1, 32)
        self._labels = (self._rows > 127).to(torch.uint8)
        self._none = torch.zeros(3, dtype=torch.int64)

    def emit(self, sums: RowSums, y: int, height: int, sink: RowSink | None) -> None:
        """Pass rows of the picture to the sink."""
        if sink is not None:
            sink(y, self._rows.expand(sums.channels, *self._rows.shape)[:, :height])

    def take(self, builder: StripBuilder, strip: OpenStrip, y: int, at: int, part: Tensor) -> None:
        """Set a strip to parts of the picture, which is as expensive to encode as a prediction."""
        if strip.probabilities is not None:
            height, width, classes = strip.probabilities.shape
            picture = self._rows[:height, :width, None]
            strip.probabilities = picture.expand(height, width, classes)
        if strip.labels is not None:
            strip.labels = self._labels[: len(strip.labels), : strip.labels.shape[1]]
        strip.steps = self._none
        # As in an uninterrupted run, so that no row is read again for the seam score.
        strip.follows = True


def run(
    store: SlideStore, out: Path, name: str, options: argparse.Namespace
) -> tuple[float, InferReport]:
    """Predict once; return CPU seconds from the first read to the last write, and the report."""
    device = "cpu" if name == "stand-in" else name
    card = ModelCard(
        architecture="Unet", encoder="resnet18", in_channels=3, mpp=None, tile_px=TILE,
        classes=ClassTable.named([f"class{n}" for n in range(options.classes)]),
        mean=(0.5,) * 3, std=(0.25,) * 3,
    )  # fmt: skip
    model = Model((Member(card, "instant"),))
    chosen = InferOptions(
        batch=options.batch, device=device, precision="fp32", skip_background=False
    )
    instant = Instant(device, options.classes, options.batch)
    executor = Counted(model, chosen, load=lambda *_: instant)
    with stand_in() if name == "stand-in" else nullcontext():
        report = infer_with(model, [store], out, chosen, executor=executor, progress=Silent())
    return executor.cpu, report


@contextmanager
def stand_in() -> Iterator[None]:
    """Replace the work of the device by stubs."""
    none = NoDevice()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with a GPU, only the launching thread copies
    places: list[tuple[type, str, Callable[..., object]]] = [
        (Band, "_put", lambda *_: None),
        (Band, "cut", lambda *_: None),
        (RowSums, "enter", lambda *_: None),
        (RowSums, "add", lambda *_: None),
        (RowSums, "emit", lambda sums, y, height, sink: none.emit(sums, y, height, sink)),
        (StripBuilder, "_take", lambda builder, *rest: none.take(builder, *rest)),
    ]
    with replaced(places):
        yield
    torch.set_num_threads(threads)


@contextmanager
def replaced(places: list[tuple[type, str, Callable[..., object]]]) -> Iterator[None]:
    """Replace methods by functions within a context."""
    real = [getattr(owner, name) for owner, name, _ in places]
    for owner, name, call in places:
        setattr(owner, name, call)
    try:
        yield
    finally:
        for (owner, name, _), call in zip(places, real, strict=True):
            setattr(owner, name, call)


@contextmanager
def parts() -> Iterator[dict[str, float]]:
    """Sum the CPU seconds of reading, encoding and writing over all threads."""
    spent = {"reading": 0.0, "encoding": 0.0, "writing": 0.0}
    lock = threading.Lock()
    places: list[tuple[type, str, str]] = [
        (SourceRows, "read", "reading"),
        (Encoding, "encode", "encoding"),
        (StripSaver, "write", "writing"),
    ]

    def timed(call: Callable[..., object], part: str) -> Callable[..., object]:
        def timing(*arguments: object) -> object:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                with lock:
                    spent[part] += time.thread_time() - began

        return timing

    with replaced(
        [(owner, name, timed(getattr(owner, name), part)) for owner, name, part in places]
    ):
        yield spent


def bare_work(store: SlideStore, prediction: SlideStore) -> float:
    """Return the CPU seconds of decoding level 0 of a slide and encoding its whole prediction."""
    array = store.image.arrays[0]
    cache = ChunkCache()
    rows = -(-array.extent.height // array.chunk.height)
    columns = -(-array.extent.width // array.chunk.width)
    streams = [read_encoded(array, y, x, cache) for y in range(rows) for x in range(columns)]
    began = time.process_time()
    for data in streams:
        if data is not None:
            array.encoding.decode(data, array.chunk_shape)
    spent = time.process_time() - began
    labels = [prediction.label(name) for name in prediction.label_names()]
    for image in (prediction.image, *labels):
        spent += encoding_seconds(image)
    return spent


def encoding_seconds(image: Multiscale) -> float:
    """Return the CPU seconds of encoding all non-empty chunks of an image."""
    spent = 0.0
    for level, array in enumerate(image.arrays):
        size = array.chunk
        for y in range(0, array.extent.height, size.height):
            for x in range(0, array.extent.width, size.width):
                region = Region(level=level, y=y, x=x, height=size.height, width=size.width)
                part = image.read(region.clip(array.extent), cached=False)
                chunk = np.zeros(array.chunk_shape, dtype=np.uint8)
                chunk[: part.shape[0], : part.shape[1]] = part
                if chunk.any():
                    began = time.process_time()
                    array.encoding.encode(chunk)
                    spent += time.process_time() - began
    return spent


if __name__ == "__main__":
    main()
