import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from shapely.geometry import Polygon

from wsi_seg.errors import WsiSegError
from wsi_seg.progress import Silent
from wsi_seg.testing.tissue import TissueScene, make_scene, write_tissue_slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tissue") / "small.tif"
    write_tissue_slide(path, height=2100, width=2500, seed=3)
    return path


@pytest.fixture(scope="module")
def glands(slide: Path) -> list[Polygon]:
    truth = json.loads(slide.with_suffix(".geojson").read_text())
    assert {f["properties"]["classification"]["name"] for f in truth["features"]} == {"gland"}
    return [Polygon(*feature["geometry"]["coordinates"]) for feature in truth["features"]]


def test_slide_is_a_jpeg_pyramid_with_its_resolution(slide: Path):
    with tifffile.TiffFile(slide) as tiff:
        assert tiff.is_bigtiff
        assert [page.shape[:2] for page in tiff.pages] == [(2100, 2500), (525, 625)]
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
        assert [page.subfiletype for page in pages] == [0, 1]
        assert {page.compression for page in pages} == {tifffile.COMPRESSION.JPEG}
        numerator, denominator = pages[1].tags["XResolution"].value
        assert 1e4 * denominator / numerator == pytest.approx(2.0)
    assert sorted(p.name for p in slide.parent.iterdir()) == ["small.geojson", "small.tif"]


def test_coarse_level_is_the_mean_of_the_fine_one(slide: Path):
    fine = tifffile.imread(slide, key=0).astype(float)
    coarse = tifffile.imread(slide, key=1).astype(float)
    mean = fine.reshape(525, 4, 625, 4, 3).mean(axis=(1, 3))
    assert np.abs(mean - coarse).mean() < 5


def test_truth_is_valid_apart_and_inside(glands: list[Polygon]):
    assert len(glands) > 3
    for index, gland in enumerate(glands):
        assert gland.is_valid
        assert 60 < 2 * np.sqrt(gland.area / np.pi) * 0.5 < 140  # um
        y0, x0 = gland.bounds[1], gland.bounds[0]
        assert min(y0, x0) >= 0
        assert gland.bounds[2] <= 2500
        assert gland.bounds[3] <= 2100
        assert all(not gland.intersects(other) for other in glands[:index])


def test_glands_have_a_pale_gap_around_a_dark_tuft(slide: Path, glands: list[Polygon]):
    green = tifffile.imread(slide, key=0)[..., 1].astype(float)
    for gland in glands:
        centre, rim = gland.centroid, gland.exterior
        along = [rim.interpolate(share, normalized=True) for share in np.linspace(0, 1, 60)]

        def mean(points, at, middle=centre):
            places = [
                (
                    int(middle.y + at * (point.y - middle.y)),
                    int(middle.x + at * (point.x - middle.x)),
                )
                for point in points
            ]
            return np.mean([green[place] for place in places])

        assert mean(along, 0.91) > mean(along, 0.5) + 20


@pytest.fixture(scope="module")
def scene() -> TissueScene:
    return make_scene(height=1500, width=1700, seed=5)


def test_same_seed_same_pixels_in_any_order(scene: TissueScene):
    second = make_scene(height=1500, width=1700, seed=5)
    for y, x in ((1024, 512), (0, 0), (512, 1024)):
        np.testing.assert_array_equal(scene.tile(y, x), second.tile(y, x))
    for x, y in ((512, 1024), (0, 0), (1024, 512)):
        np.testing.assert_array_equal(scene.tile(y, x), second.tile(y, x))


def test_tiles_meet_without_a_seam(scene: TissueScene):
    left, right = scene.tile(512, 512).astype(int), scene.tile(512, 1024).astype(int)
    across = np.abs(left[:, -1] - right[:, 0]).mean()
    inside = np.abs(np.diff(left[:, -40:], axis=1)).mean()
    assert across < 2 * inside + 1


def test_an_unwritable_folder_is_our_error(tmp_path: Path):
    with pytest.raises(WsiSegError, match="nowhere"):
        write_tissue_slide(tmp_path / "nowhere" / "a.tif", height=600, width=600, seed=1)


def test_the_step_of_painting_ends(tmp_path):
    class Steps(Silent):
        open = 0

        def start(self, title, total, unit):
            self.open += 1

        def finish(self):
            self.open -= 1

    steps = Steps()
    write_tissue_slide(tmp_path / "a.tif", height=600, width=700, seed=1, progress=steps)
    assert steps.open == 0
