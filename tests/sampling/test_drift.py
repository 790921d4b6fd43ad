"""Detecting slides that differ from the training slides of a model."""

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.sampling.drift import FIGURES, Looks, compare_looks, measure_looks
from wsi_seg.store import create_collection, open_collection
from wsi_seg.testing.stores import write_image

PURPLE = np.array([150, 90, 160])


def collection_of(folder, colours, *, mpp=0.5):
    """Make slides of these colours with a little noise, seeded by their name."""
    create_collection(folder)
    for number, colour in enumerate(colours):
        rng = np.random.default_rng(number)
        pixels = np.clip(rng.normal(colour, 12, (90, 120, 3)), 0, 255).astype(np.uint8)
        extents = [Extent.of(pixels.shape)]
        write_image(folder / f"s{number}", pixels, {}, mpp=mpp, extents=extents)
    return open_collection(folder)


def looks(*where, **how):
    return measure_looks(collection_of(*where, **how), progress=Silent())


@pytest.fixture
def usual(tmp_path):
    return looks(tmp_path / "train.zarr", [PURPLE + n for n in range(-6, 6, 2)])


def test_similar_slides_have_no_drift(usual, tmp_path):
    drift = compare_looks(looks(tmp_path / "b.zarr", [PURPLE - 1, PURPLE + 3]), usual)
    assert set(drift.verdicts.values()) == {()}
    assert drift.lines()[-1] == "like the others: 2 of 2 slides"
    assert compare_looks(usual, usual).distances == dict.fromkeys(FIGURES, 0.0)


@pytest.mark.parametrize(
    ("change", "figure", "sign"),
    [
        ((60, 60, 60), "lightness", "+"),
        ((-60, -60, -60), "lightness", "-"),
        ((-60, 40, 0), "red_green", "-"),
        ((0, 0, -90), "yellow_blue", "+"),
    ],
)
def test_a_slide_of_another_colour_is_reported_with_its_deviation(
    usual, tmp_path, change, figure, sign
):
    drift = compare_looks(looks(tmp_path / "b.zarr", [PURPLE, PURPLE + change]), usual)
    assert drift.verdicts["s0"] == ()
    assert any(word.startswith(f"{figure} {sign}") for word in drift.verdicts["s1"])
    assert drift.distances[figure] >= 0.5


def test_another_resolution_is_reported(usual, tmp_path):
    one = looks(tmp_path / "b.zarr", [PURPLE], mpp=0.25)
    assert compare_looks(one, usual).verdicts["s0"] == ("0.25 um per pixel, not 0.5",)
    same = looks(tmp_path / "c.zarr", [PURPLE], mpp=0.55)
    assert compare_looks(same, usual).verdicts["s0"] == ()


def test_only_tissue_counts_if_there_is_a_mask(tmp_path):
    """Half of each slide is glass, which would change the statistics of whole slides."""
    rng = np.random.default_rng(0)
    for name, share in (("little", 0.2), ("much", 0.8)):
        pixels = np.full((600, 600, 3), 242, dtype=np.uint8)
        rows = round(600 * share)
        pixels[:rows] = np.clip(rng.normal(PURPLE, 12, (rows, 600, 3)), 0, 255)
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, tile=(128, 128), photometric="rgb")
    tile_slides([tmp_path / "little.tif", tmp_path / "much.tif"], tmp_path / "store.zarr")
    found = measure_looks(open_collection(tmp_path / "store.zarr"), progress=Silent()).slides
    little, much = found["little"], found["much"]
    assert abs(little.lightness - much.lightness) < 2
    assert little.mpp is None


def test_nothing_to_compare_with_is_an_error(usual):
    with pytest.raises(StoreError, match="got 6 slides to compare with 0"):
        compare_looks(usual, Looks({}))


def test_the_command_prints_statistics_and_verdicts(tmp_path):
    collection_of(tmp_path / "train.zarr", [PURPLE] * 3)
    collection_of(tmp_path / "new.zarr", [PURPLE, PURPLE + 70])
    paths = str(tmp_path / "new.zarr"), "--compare", str(tmp_path / "train.zarr")
    done = CliRunner().invoke(app, ["stats", *paths])
    assert done.exit_code == 0, done.output
    assert "s1: unlike the others: lightness +" in done.output
    assert "like the others: 1 of 2 slides" in done.output
