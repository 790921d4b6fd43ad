"""Runs one peer's tiled inference as its documentation says; prints one line of JSON.

Started by ``bench_infer.py`` in the peers' own environment (``make bench-env``), which has no
wsi_seg. The slide is a tiled TIFF, the network an smp Unet with weights from a safetensors file.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import tifffile
import torch
from safetensors.torch import load_file

MEAN, STD = 0.5, 0.25

# Seconds, peak memory in MB, and probabilities.
Measured = tuple[float, int, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path, help="where the probabilities go, (H, W) float32 npy")
    parser.add_argument("--encoder", default="efficientnet-b0")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    if options.encoder == "toy":  # for peak memory: what is held around the network
        network = torch.nn.Conv2d(3, 1, 3, padding=1).eval()
    else:
        network = smp.Unet(options.encoder, encoder_weights=None, classes=1).eval()
    network.load_state_dict(load_file(options.weights))
    if options.precision == "bf16":
        network = network.to(memory_format=torch.channels_last)
    with torch.inference_mode(), precision(options):
        seconds, peak, probability = ENGINES[options.engine](options, network)
    if options.encoder != "toy":
        np.save(options.out, probability.astype(np.float32))
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 10**6)


def precision(options: argparse.Namespace) -> torch.autocast | nullcontext[None]:
    if options.precision == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


def monai(options: argparse.Namespace, network: torch.nn.Module) -> Measured:
    """Sliding windows over an array that is in memory before the clock starts."""
    from monai.inferers import sliding_window_inference

    pixels = tifffile.imread(options.slide, level=0)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    image = (image / 255 - MEAN) / STD
    started = time.perf_counter()
    logits = sliding_window_inference(
        image,
        (options.tile, options.tile),
        options.batch,
        network,
        overlap=0.5,
        mode="gaussian",
    )
    probability = torch.sigmoid(logits.float())[0, 0].numpy()
    return time.perf_counter() - started, peak_mb(), probability


def tiatoolbox(options: argparse.Namespace, network: torch.nn.Module) -> Measured:
    """SemanticSegmentor from the slide's file to probabilities in a zarr array."""
    import zarr
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.models.models_abc import ModelABC

    class Wrapped(ModelABC):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.network(batch)

        @staticmethod
        def preproc(image: np.ndarray) -> np.ndarray:
            return (image / np.float32(255) - np.float32(MEAN)) / np.float32(STD)

        @staticmethod
        def postproc(image: np.ndarray) -> np.ndarray:
            return image

        @staticmethod
        def infer_batch(model: torch.nn.Module, batch: torch.Tensor, *, device: str) -> np.ndarray:
            images = batch.to(device).type(torch.float32).permute(0, 3, 1, 2)
            with precision(options):
                logits = model(images)
            # It wants scores of classes: of nothing, and of the thing.
            thing = torch.sigmoid(logits.float())
            return torch.cat([1 - thing, thing], 1).permute(0, 2, 3, 1).cpu().numpy()

    shape = [options.tile, options.tile]
    config = IOSegmentorConfig(
        input_resolutions=[{"units": "baseline", "resolution": 1.0}],
        output_resolutions=[{"units": "baseline", "resolution": 1.0}],
        save_resolution={"units": "baseline", "resolution": 1.0},
        patch_input_shape=shape,
        patch_output_shape=shape,
        stride_shape=[options.tile // 2] * 2,
    )
    engine = SemanticSegmentor(Wrapped(), batch_size=options.batch, num_workers=0, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        engine.run(
            [options.slide],
            patch_mode=False,
            save_dir=Path(folder) / "out",
            output_type="zarr",
            ioconfig=config,
            auto_get_mask=False,
            return_probabilities=True,
            overwrite=True,
        )
        seconds, peak = time.perf_counter() - started, peak_mb()
        (found,) = (Path(folder) / "out").glob("*.zarr")
        probability = np.asarray(zarr.open(str(found), mode="r")["probabilities"])[..., 1]
    return seconds, peak, probability


def toolbelt(options: argparse.Namespace, network: torch.nn.Module) -> Measured:
    """ImageSlicer and TileMerger over an array that is in memory before the clock starts."""
    from pytorch_toolbelt.inference.tiles import ImageSlicer, TileMerger
    from torch.utils.data import DataLoader

    pixels = tifffile.imread(options.slide, level=0)
    image = (pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    size, step = (options.tile, options.tile), (options.tile // 2, options.tile // 2)
    started = time.perf_counter()
    tiler = ImageSlicer(image.shape, tile_size=size, tile_step=step, weight="pyramid")
    tiles = [torch.from_numpy(tile.transpose(2, 0, 1).copy()) for tile in tiler.split(image)]
    merger = TileMerger(tiler.target_shape, 1, tiler.weight, device="cpu")
    pairs = list(zip(tiles, tiler.crops, strict=True))
    for batch, places in DataLoader(pairs, batch_size=options.batch):
        merger.integrate_batch(torch.sigmoid(network(batch).float()), places)
    merged = merger.merge().permute(1, 2, 0).numpy()
    probability = tiler.crop_to_orignal_size(merged)[..., 0]
    return time.perf_counter() - started, peak_mb(), probability


def lazyslide(options: argparse.Namespace, network: torch.nn.Module) -> Measured:
    """semantic() from the slide's file; the clock stops when tiles are blended in memory.

    It keeps polygons only. Of a random network they would be noise, and take longer than the
    network, so its class for them hands over the probabilities instead.
    """
    import lazyslide as zs
    import pandas as pd
    from lazyslide.segmentation import _seg_runner
    from lazyslide_models.base import SegmentationOutput
    from wsidata import open_wsi

    blended: list[np.ndarray] = []

    class Probabilities:
        def __init__(self, part: np.ndarray, class_names: object) -> None:
            self.part = part

        def to_polygons(self, **_: object) -> pd.DataFrame:
            blended.append(self.part if self.part.base is None else self.part.base)
            return pd.DataFrame()

    class Model:
        def to(self, device: object) -> None:
            network.to(device)

        def get_transform(self) -> object:
            return None

        def segment(self, image: torch.Tensor) -> SegmentationOutput:
            return SegmentationOutput(probability_map=torch.sigmoid(network(image).float()))

    def normalised(image: np.ndarray) -> torch.Tensor:
        return (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - MEAN) / STD

    _seg_runner.ProbabilityMap = Probabilities
    started = time.perf_counter()
    wsi = open_wsi(options.slide, store=None)
    zs.pp.tile_tissues(wsi, options.tile, overlap=0.5, edge=True, tissue_key=None)
    with suppress(Exception):  # without polygons it has nothing to add to the slide
        zs.seg.semantic(
            wsi, Model(), transform=normalised, batch_size=options.batch, device="cpu", pbar=False
        )
    return time.perf_counter() - started, peak_mb(), blended[0][0]


ENGINES: dict[str, Callable[[argparse.Namespace, torch.nn.Module], Measured]] = {
    "monai": monai,
    "tiatoolbox": tiatoolbox,
    "lazyslide": lazyslide,
    "toolbelt": toolbelt,
}

if __name__ == "__main__":
    main()
