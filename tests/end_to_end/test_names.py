"""Slides and folders of any name: every verb keeps to the path as it is given."""

import csv
import io
import json
import unicodedata
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image
from starlette.testclient import TestClient

from wsi_seg.annotations import read_annotations
from wsi_seg.classes import ClassTable
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.files.address import is_remote
from wsi_seg.geometry import Extent, Region
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.outlines import outline_mask
from wsi_seg.masks.reading import Reading
from wsi_seg.models import ModelCard
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.viewer.app import make_app
from wsi_seg.viewer.catalog import Catalog

NAMES = (
    "S1", "S1#2", "a?b", "a;b", "a%20b", "a&b=c", "with space", " lead", "trail ", "tab\there",
    "new\nline", 'q"uote', "ap'os", "com,ma", "-dash", "--out", "back\\slash", "(paren) [x]*",
    "[0-9]", "~home", "$HOME", "`id`", "a:b", "s3:", "file:a", "dots..", "1.2.840", "0", "c",
    "labels", "CON", "a<b>|c", "日本語", "emoji😀", unicodedata.normalize("NFD", "Prüfung"),
    "x" * 251, "ü" * 125, "A", "a", "{curly}", "zip::b", "name.zarr", "tissue", "@at", "!bang",
)  # fmt: skip

FOLDERS = (
    "p#x", "p?x", "p;x", "p%20x", " p ", "p\tx", "p\nx", "p'\"x", "-p", ".p", "p.", "memory::p",
    "[p]*", unicodedata.normalize("NFD", "ü"), "ü", "p" * 255,
)  # fmt: skip


class Dark(torch.nn.Module):
    """Finds a gland in every pixel: as fast as a network can be."""

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(5.0))

    def forward(self, x):
        return x[:, :1] * 0 + self.level


CARD = ModelCard(
    architecture="Unet", encoder="resnet18", in_channels=3, classes=ClassTable.named(["gland"]),
    mpp=0.5, tile_px=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
)  # fmt: skip


def write_slide(path, seed):
    """Slide of random pixels, of a size of its own."""
    size = (70 + seed, 100 + seed)
    pixels = np.random.default_rng(seed).integers(0, 120, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, pixels, tile=(64, 64), photometric="rgb", compression="zlib", metadata=None,
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return pixels


def square(name):
    ring = [[10, 10], [50, 10], [50, 50], [10, 50], [10, 10]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return [{"type": "Feature", "geometry": geometry, "properties": {"class": name}}]


def whole(image):
    extent = image.pyramid.extent
    return image.read(Region(level=0, y=0, x=0, height=extent.height, width=extent.width))


def infer(slides, out):
    stores = [slides[name] for name in slides.names()]
    options = InferOptions(precision="fp32", batch=4, tile_px=64)
    infer_with((Dark(), CARD), stores, out, options, overwrite=True, progress=Silent())
    return open_predictions(out)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Slides of all names, tiled in two runs."""
    folder = tmp_path_factory.mktemp("names")
    pixels = {
        name: write_slide(folder / "slides" / f"{name}.tif", seed)
        for seed, name in enumerate(NAMES)
    }
    files = [folder / "slides" / f"{name}.tif" for name in NAMES]
    for part in (files[::2], files[1::2]):
        tile_slides(part, folder / "s.zarr", progress=Silent()).require_whole()
    return folder, pixels


def test_slides_of_any_name_are_tiled(named):
    folder, pixels = named
    slides = open_collection(folder / "s.zarr")
    assert slides.names() == tuple(sorted(NAMES))
    for name in NAMES:
        assert np.array_equal(whole(slides[name].image), pixels[name]), name
    top = {child.name for child in (folder / "s.zarr").iterdir()}
    assert top == {*NAMES, "zarr.json", ".wsi_seg"}
    bare = zarr.open_array(zarr.storage.LocalStore(folder / "s.zarr" / "S1#2" / "0"), mode="r")
    assert np.array_equal(np.moveaxis(np.asarray(bare[:]), 0, -1), pixels["S1#2"])


def test_slides_of_any_name_are_annotated(named):
    folder, _ = named
    slides = open_collection(folder / "s.zarr")
    for name in NAMES:
        text = json.dumps(square("T"))
        short = name if len(name.encode()) < 245 else None
        if short is not None:
            path = folder / "ann" / f"{unicodedata.normalize('NFC', name)}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    report = annotate(slides, [folder / "ann"], progress=Silent())
    assert set(report.objects) == {name for name in NAMES if len(name.encode()) < 245}
    assert report.unused == ()
    for name in report.objects:
        assert np.count_nonzero(whole(slides[name].label("annotations"))) == 1600, name


def test_files_that_name_slides_may_name_any(named):
    folder, pixels = named
    slides = open_collection(folder / "s.zarr")
    with (folder / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "rle"])
        writer.writerows((name, "1 3 9 4") for name in NAMES)
    reading = Reading(default_class="T", dialect="absolute")
    report = annotate(slides, [folder / "all.csv"], name="rle", reading=reading, progress=Silent())
    assert report.objects == dict.fromkeys(sorted(NAMES), 2)
    images = [
        {"id": n, "file_name": f"dir/{name}.tif", "height": pixels[name].shape[0],
         "width": pixels[name].shape[1]}
        for n, name in enumerate(NAMES)
    ]  # fmt: skip
    drawn = [
        {"image_id": n, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
        for n, _ in enumerate(NAMES)
    ]
    document = {"images": images, "annotations": drawn, "categories": [{"id": 1, "name": "T"}]}
    (folder / "all.json").write_text(json.dumps(document))
    report = annotate(slides, [folder / "all.json"], name="coco", progress=Silent())
    assert report.objects == dict.fromkeys(sorted(NAMES), 1)


def test_slides_of_any_name_are_predicted_and_exported(named, tmp_path):
    folder, pixels = named
    slides = open_collection(folder / "s.zarr")
    predictions = infer(slides, tmp_path / "pred.zarr")
    predictions = infer(slides, tmp_path / "pred.zarr")  # the second replaces the first
    assert predictions.names() == tuple(sorted(NAMES))
    targets = ExportTargets(
        geojson=tmp_path / "g", png=tmp_path / "p", ome_tiff=tmp_path / "o", table=tmp_path / "t",
        overview=tmp_path / "v", rle=tmp_path / "r.csv", coco=tmp_path / "c.json",
    )  # fmt: skip
    report = export(predictions, slides, targets, progress=Silent())
    assert report.objects == dict.fromkeys(sorted(NAMES), 1)
    assert all(Path(file).exists() for file in report.files)
    assert len(set(report.files)) == len(report.files)
    written = [f for folder in "gpotv" for f in (tmp_path / folder).glob("[!.]*")]
    assert len(written) + 2 == len(report.files)
    for name in NAMES:
        if len(name.encode()) < 245:
            size = Extent(height=pixels[name].shape[0], width=pixels[name].shape[1])
            (item,) = read_annotations(tmp_path / "g" / f"{name}.geojson").items
            (mask,) = outline_mask(tmp_path / "p" / f"{name}.png", size, default_class="T").items
            assert item.geometry.area == mask.geometry.area == size.area
    assert sum("shortened name" in text for text in report.warnings) == 2
    for file in ("r.csv", "c.json"):
        reading = Reading(dialect="absolute")
        back = annotate(slides, [tmp_path / file], name="back", reading=reading, progress=Silent())
        assert back.objects == dict.fromkeys(sorted(NAMES), 1)


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_lies_below_the_folder_that_is_named(tmp_path, folder):
    pixels = write_slide(tmp_path / folder / "a.tif", 1)
    (tmp_path / folder / "a.json").write_text(json.dumps(square("T")))
    out = tmp_path / folder / "store.zarr"
    tile_slides([tmp_path / folder / "a.tif"], out, progress=Silent())
    slides = open_collection(out)
    annotate(slides, [tmp_path / folder / "a.json"], progress=Silent())
    predictions = infer(slides, tmp_path / folder / "pred.zarr")
    targets = ExportTargets(
        geojson=tmp_path / folder / "g", table=tmp_path / folder / "t", ome_tiff=tmp_path / folder
    )
    export(predictions, slides, targets, progress=Silent())
    assert [child.name for child in tmp_path.iterdir()] == [folder]
    assert np.array_equal(whole(slides["a"].image), pixels)
    assert np.count_nonzero(whole(slides["a"].label("annotations"))) == 1600


def test_a_collection_never_lands_in_another(tmp_path):
    pixels = write_slide(tmp_path / "a.tif", 1)
    for name in ("store.zarr", "store.zarr#2", "store.zarr?x=1", "store.zarr;v=2"):
        tile_slides([tmp_path / "a.tif"], tmp_path / name, progress=Silent())
    for name in ("store.zarr", "store.zarr#2", "store.zarr?x=1", "store.zarr;v=2"):
        slides = open_collection(tmp_path / name)
        assert slides.names() == ("a",)
        assert {child.name for child in (tmp_path / name).iterdir()} == {
            "a",
            "zarr.json",
            ".wsi_seg",
        }
        assert np.array_equal(whole(slides["a"].image), pixels)


@pytest.mark.parametrize("folder", ["s3:", "memory:", "file:", "https:"])
def test_a_folder_called_like_an_address_is_a_folder(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    pixels = write_slide(Path(folder) / "a.tif", 1)
    assert not is_remote(Path(folder) / "a.tif")
    tile_slides([Path(folder) / "a.tif"], Path(folder) / "s.zarr", progress=Silent())
    assert [child.name for child in tmp_path.iterdir()] == [folder]
    assert np.array_equal(whole(open_collection(Path(folder) / "s.zarr")["a"].image), pixels)


def test_slides_of_any_name_are_viewed(named):
    folder, pixels = named
    catalog = Catalog(open_collection(folder / "s.zarr"), None, "annotations")
    http = TestClient(make_app(catalog, review=None, token=None), base_url="http://127.0.0.1")
    for name in (name for name in NAMES if "%" not in name):  # the test client unquotes twice
        place = f"/slides/{quote(name, safe='')}"
        assert http.get(place).json()["name"] == name
        tile = http.get(f"{place}/layers/image/0/0/0")
        with Image.open(io.BytesIO(tile.content)) as picture:
            seen = np.asarray(picture.convert("L"))[:64, :64].ravel()  # JPEG of noise
        own = pixels[name][:64, :64].mean(axis=2).ravel()
        assert np.corrcoef(seen, own)[0, 1] > 0.6, name
