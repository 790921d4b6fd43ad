import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from tests.makers.coordinates import coordinate_pixels, write_coordinate_tiff
from wsi_seg.errors import RegionError, SlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import open_slide
from wsi_seg.slides.openslide import OpenSlideSlide, recognises
from wsi_seg.testing.conformance import check_slide

EXTENTS = [Extent(height=300, width=410), Extent(height=150, width=205)]


@pytest.fixture
def path(tmp_path):
    write_coordinate_tiff(tmp_path / "a.tif", extents=EXTENTS, mpp=0.25)
    return tmp_path / "a.tif"


def test_it_conforms(path):
    levels = [coordinate_pixels(e.region(i), e) for i, e in enumerate(EXTENTS)]
    check_slide(path, levels, mpp=0.25, opener=OpenSlideSlide)


def test_it_agrees_with_our_own_reader(path):
    ours, theirs = open_slide(path), OpenSlideSlide(path)
    assert theirs.pyramid == ours.pyramid
    assert theirs.mpp_source == "openslide"
    for level, extent in enumerate(EXTENTS):
        whole = extent.region(level)
        part = Region(level=level, y=31, x=47, height=55, width=63)
        for region in (whole, part):
            np.testing.assert_array_equal(theirs.read(region), ours.read(region))
            np.testing.assert_array_equal(
                pickle.loads(pickle.dumps(theirs)).read(region), ours.read(region)
            )


def test_it_reads_on_after_close_and_refuses_what_is_outside(path):
    region = Region(level=0, y=0, x=0, height=5, width=5)
    with OpenSlideSlide(path, mpp=0.5) as slide:
        before = slide.read(region)
        assert slide.pyramid.mpp == 0.5
    np.testing.assert_array_equal(slide.read(region), before)
    with pytest.raises(RegionError):
        slide.read(Region(level=0, y=299, x=0, height=2, width=1))


def open_files(path):
    return [one for one in Path("/proc/self/fd").iterdir() if one.exists() and one.samefile(path)]


@pytest.mark.parametrize("fault", [False, True])
def test_a_read_in_another_thread_survives_close_and_faults(path, monkeypatch, fault):
    slide, region = OpenSlideSlide(path), Region(level=0, y=3, x=4, height=5, width=5)
    expected, real = slide.read(region), openslide.OpenSlide.read_region
    inside, closed = threading.Event(), threading.Event()

    def slow(handle, *where):
        inside.set()
        assert closed.wait(10)
        return real(handle, *where)

    def damaged(*_):
        raise openslide.OpenSlideError("damaged tile")

    monkeypatch.setattr(openslide.OpenSlide, "read_region", slow)
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(slide.read, region)
        assert inside.wait(10)
        if fault:
            monkeypatch.setattr(openslide.OpenSlide, "read_region", damaged)
            with pytest.raises(SlideError, match="damaged tile"):
                slide.read(region)
        else:
            slide.close()
        closed.set()
        np.testing.assert_array_equal(reading.result(), expected)
    assert not open_files(path)


def test_what_openslide_cannot_open_is_one_sentence(tmp_path):
    (tmp_path / "a.mrxs").write_text("no slide")
    with pytest.raises(SlideError, match=r"a\.mrxs: OpenSlide cannot open it"):
        open_slide(tmp_path / "a.mrxs")
    tifffile.imwrite(tmp_path / "cmyk.tif", np.zeros((9, 9, 4), np.uint8), photometric="separated")
    assert not recognises(tmp_path / "cmyk.tif")
    with pytest.raises(SlideError, match="cmyk"):
        open_slide(tmp_path / "cmyk.tif")
