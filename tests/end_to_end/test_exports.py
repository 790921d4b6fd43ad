"""What is exported of slides of odd sizes, predicted at a lower resolution, fits them again."""

import csv
import json

import numpy as np
import pytest
import shapely
import torch
from scipy import ndimage

from wsi_seg.annotations import read_annotations
from wsi_seg.classes import ClassTable
from wsi_seg.errors import AnnotationError
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.geometry import Region
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.models import ModelCard
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.table import read_table
from wsi_seg.progress import Silent
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image

SIZES = {"odd": (257, 259), "tall": (301, 64), "wide": (33, 401), "even": (128, 256)}


class Dark(torch.nn.Module):
    """Calls a pixel a gland where it is dark: the glands are those of the slide."""

    def __init__(self, everywhere):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(50.0 if everywhere else 0.0))

    def forward(self, x):
        return self.shift - 20 * x[:, :1]


def blobs(height, width):
    """Rings and blobs, some cut by the slide's border, (H, W) bool."""
    noise = np.random.default_rng(height).normal(size=(height, width))
    smooth = np.abs(ndimage.gaussian_filter(noise, 8))
    return smooth < np.median(smooth)


def make_slides(folder):
    create_collection(folder / "s.zarr")
    for name, (height, width) in SIZES.items():
        pixels = np.where(blobs(height, width)[:, :, None], 40, 210).repeat(3, 2).astype(np.uint8)
        path = folder / "s.zarr" / name
        write_image(path, pixels, {"kind": "slide"}, mpp=0.25)
    return open_collection(folder / "s.zarr")


@pytest.fixture(scope="module", params=[0.5, 0.6, 0.25], ids=["half", "some", "full"])
def exported(request, tmp_path_factory):
    """Slides, and everything that is exported of their predictions."""
    folder = tmp_path_factory.mktemp("odd")
    slides = make_slides(folder)
    card = ModelCard(
        architecture="Unet", encoder="resnet18", in_channels=3,
        classes=ClassTable.named(["gland"]), mpp=request.param, tile_px=64,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip
    stores = [slides[name] for name in slides.names()]
    options = InferOptions(precision="fp32", batch=4, tile_px=64)
    for kind in ("some", "every"):
        model = (Dark(kind == "every"), card)
        infer_with(model, stores, folder / f"{kind}.zarr", options, progress=Silent())
        targets = ExportTargets(
            geojson=folder / kind / "g", png=folder / kind / "p", ome_tiff=folder / kind / "o",
            table=folder / kind / "t", rle=folder / kind / "r.csv", coco=folder / kind / "c.json",
            asap=folder / kind / "a", min_area_um2=0, simplify_um=0,
        )  # fmt: skip
        export(open_predictions(folder / f"{kind}.zarr"), None, targets, progress=Silent())
    return folder, slides


def read_back(slides, path, label):
    """Class ids at level 0 of every slide."""
    reading = Reading(class_names=("gland",))
    annotate(slides, [path], name=label, reading=reading, progress=Silent())
    found = {}
    for name, (height, width) in SIZES.items():
        region = Region(level=0, y=0, x=0, height=height, width=width)
        found[name] = slides[name].label(label).read(region)
    return found


@pytest.mark.parametrize("kind", ["some", "every"])
def test_every_format_is_read_back_to_the_same_pixels(exported, kind):
    folder, slides = exported
    found = {
        part: read_back(slides, folder / kind / part, f"{kind}{part[0]}")
        for part in ("g", "a", "p", "r.csv", "c.json")
    }
    for path in (folder / kind / "o").glob("*.probability.*"):
        path.unlink()
    found["o"] = read_back(slides, folder / kind / "o", f"{kind}o")
    for name, (height, width) in SIZES.items():
        drawn = found["g"][name]
        for part, ids in found.items():
            if part == "a":  # cut at holes: borders through pixels' centres may fall otherwise
                assert np.mean(ids[name] != drawn) < 0.0005
                continue
            np.testing.assert_array_equal(ids[name], drawn, err_msg=f"{part} of {name}")
        if kind == "every":
            assert (drawn == 1).all(), name
        else:
            assert np.mean((drawn == 1) == blobs(height, width)) > 0.85


def test_nothing_lies_outside_the_slide_and_sizes_are_its_own(exported):
    folder, _ = exported
    document = json.loads((folder / "every" / "c.json").read_text())
    assert {i["file_name"]: (i["height"], i["width"]) for i in document["images"]} == SIZES
    for name, (height, width) in SIZES.items():
        for kind in ("some", "every"):
            items = read_annotations(folder / kind / "g" / f"{name}.geojson").items
            bounds = shapely.total_bounds([item.geometry for item in items])
            assert bounds[:2].min() >= 0
            assert bounds[2] <= width
            assert bounds[3] <= height
            table = read_table(folder / kind / "t" / f"{name}.csv")
            assert max(table.right) <= width + 1e-6
            assert max(table.bottom) <= height + 1e-6
        assert tuple(bounds) == (0, 0, width, height)


def test_a_decision_knows_the_size_of_the_slide_too(exported, tmp_path):
    folder, slides = exported
    targets = ExportTargets(
        coco=tmp_path / "c.json", rule=Rule(high_threshold=0.4, low_threshold=0.4), simplify_um=0
    )
    predictions = open_predictions(folder / "every.zarr")
    export(predictions, None, targets, progress=Silent())
    found = read_back(slides, tmp_path / "c.json", "decided")
    assert all((ids == 1).all() for ids in found.values())


def test_our_own_csv_of_another_slide_is_refused(exported, tmp_path):
    folder, slides = exported
    with (folder / "every" / "r.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image_id"] == "odd"]
    rows[0]["image_id"] = "tall"
    with (tmp_path / "r.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(AnnotationError, match=r"its slide has 64 x 301 px"):
        annotate(slides, [tmp_path / "r.csv"], name="x", progress=Silent())
