"""Feeds random patches with a peer's slide reader and two loader workers; prints one line of JSON.

Started by ``bench_sampling.py`` in the peers' own environment. Patches and the changes of colour
are those of our preset ``light``, by the same library.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as alb
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Patches(Dataset[torch.Tensor]):
    """Patches of a slide at random places of level 0, read by a peer."""

    def __init__(self, reader: str, slide: Path, places: np.ndarray, side: int) -> None:
        self.reader, self.slide, self.places, self.side = reader, slide, places, side
        self.opened = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.opened is None:
            cv2.setNumThreads(0)
            self.opened = OPEN[self.reader](self.slide)
            self.change = light()
        y, x = self.places[index].tolist()
        image = READ[self.reader](self.opened, y, x, self.side)
        image = self.change(image=np.ascontiguousarray(image))["image"]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def open_tiatoolbox(slide: Path) -> object:
    from tiatoolbox.wsicore.wsireader import WSIReader

    return WSIReader.open(slide)


def read_tiatoolbox(reader: object, y: int, x: int, side: int) -> np.ndarray:
    return reader.read_rect((x, y), (side, side), resolution=1.0, units="baseline")[..., :3]


def open_monai(slide: Path) -> object:
    from monai.data.wsi_reader import WSIReader

    reader = WSIReader("openslide", level=0)
    return reader, reader.read(slide)


def read_monai(reader: tuple, y: int, x: int, side: int) -> np.ndarray:
    image, _ = reader[0].get_data(reader[1], location=(y, x), size=(side, side))
    return np.asarray(image[:3].transpose(1, 2, 0), np.uint8)


OPEN = {"tiatoolbox": open_tiatoolbox, "monai": open_monai}
READ = {"tiatoolbox": read_tiatoolbox, "monai": read_monai}


def light() -> alb.Compose:
    return alb.Compose(
        [
            alb.D4(p=1.0),
            alb.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.5),
            alb.HueSaturationValue(10, 20, 10, p=0.5),
            alb.OneOf([alb.GaussianBlur(blur_limit=(3, 5), p=1), alb.GaussNoise(p=1)], p=0.2),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=list(OPEN))
    parser.add_argument("slide", type=Path)
    parser.add_argument("places", type=Path, help="npy file of (n, 2) y, x")
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    patches = Patches(options.reader, options.slide, np.load(options.places), options.side)
    loader = DataLoader(patches, batch_size=8, num_workers=2)
    batches = iter(loader)
    next(batches)  # workers have started, the slide is open
    started, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    print(json.dumps({"patches_per_second": count / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main()
