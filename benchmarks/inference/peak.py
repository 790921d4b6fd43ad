"""Peak memory of one inference with a toy network; run in a process of its own, prints JSON.

``python benchmarks/inference/peak.py STORE --overlap 0.5``: the network is one convolution, so that
what is held around it shows.
"""

import argparse
import json
import resource
import tempfile
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file
from torch import nn

from wsi_seg.classes import ClassTable
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.models import ModelCard
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = nn.Conv2d(3, 1, 3, padding=1)
    network.load_state_dict(load_file(options.weights))
    card = ModelCard(
        architecture="Unet",
        encoder="resnet18",
        in_channels=3,
        classes=ClassTable.named(["thing"]),
        mpp=None,
        tile_px=options.tile,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    before = psutil.Process().memory_info().rss
    chosen = InferOptions(
        overlap=options.overlap, batch=options.batch, precision="fp32", skip_background=False
    )
    with tempfile.TemporaryDirectory(dir=options.store.parent) as folder:
        stores = list(open_collection(options.store))
        report = infer_with(
            (network.eval(), card), stores, Path(folder) / "pred.zarr", chosen, progress=Silent()
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"peak_mb": peak // 10**6, "libraries_mb": before // 10**6, "seconds": report.seconds}
    print(json.dumps(found | {"planned_mb": report.memory.total // 10**6, "tiles": report.tiles}))


if __name__ == "__main__":
    main()
