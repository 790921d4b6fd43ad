"""Readers of one's own: handed to open_slide, or installed as an entry point."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.errors import SlideError
from wsi_seg.geometry import Extent, Pyramid
from wsi_seg.ingest.describe import describe_slides
from wsi_seg.slides import Slide, open_slide, search_slides, slide_name
from wsi_seg.store import open_collection
from wsi_seg.testing.conformance import check_slide


class NpySlide(Slide):
    """Pixels of a .npy file, with half of them as a second level."""

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        height, width, _ = np.load(path, mmap_mode="r").shape
        halved = Extent(height=-(-height // 2), width=-(-width // 2))
        self.path, self.name, self.format = path, slide_name(path), "npy"
        self.pyramid = Pyramid((Extent(height=height, width=width), halved), mpp)
        self.mpp_source = "none" if mpp is None else "option"

    def read_region(self, region):
        step = 2**region.level
        return np.load(self.path)[::step, ::step][region.slices].copy()


def open_npy(path, *, mpp):
    return NpySlide(path, mpp=mpp) if path.suffix == ".npy" else None


def open_badly(path, *, mpp):
    if path.suffix == ".npy":
        raise ZeroDivisionError("no such header")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one reader, by its function here."""

    def add(function, name="npy"):
        info = tmp_path / "site" / f"{name}_reader-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}_reader\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[wsi_seg.readers]\n{name} = {function}\n")
        monkeypatch.syspath_prepend(tmp_path / "site")

    return add


@pytest.fixture
def pixels():
    return np.random.default_rng(3).integers(0, 255, (301, 260, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path, pixels):
    (tmp_path / "slides").mkdir()
    np.save(tmp_path / "slides/a.npy", pixels)
    return tmp_path / "slides/a.npy"


def test_an_opener_conforms_and_is_taken_before_our_readers(path, pixels):
    def opener(path, *, mpp=None):
        return open_slide(path, mpp=mpp, opener=NpySlide)

    check_slide(path, [pixels, pixels[::2, ::2]], opener=opener)


def test_an_installed_reader_conforms(path, pixels, install):
    with pytest.raises(SlideError):
        open_slide(path)
    install(f"{__name__}:open_npy")
    check_slide(path, [pixels, pixels[::2, ::2]])


def test_other_files_are_left_to_our_readers(tmp_path, pixels, install):
    from PIL import Image

    install(f"{__name__}:open_npy")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    check_slide(tmp_path / "b.png", [pixels])


def test_info_and_tile_take_it_from_folders_too(path, pixels, install, tmp_path):
    install(f"{__name__}:open_npy")
    (path.parent / "notes.txt").write_text("not a slide")
    found = search_slides([path.parent])
    assert found.slides == (path,)
    assert dict(found.others) == {".txt": 1}
    assert [slide.format for slide in describe_slides([path]).slides] == ["npy"]
    out = tmp_path / "store.zarr"
    line = ["tile", str(path.parent), "--out", str(out), "--mpp", "0.5", "--codec", "zstd"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    image = open_collection(out)["a"].image
    assert np.array_equal(image.read(image.pyramid.extent.region(0)), pixels)


@pytest.mark.parametrize("function", ["open_badly", "no_such_function"])
def test_a_reader_that_fails_is_named(path, install, function):
    install(f"{__name__}:{function}", name="broken")
    with pytest.raises(SlideError, match=r"a\.npy: reader 'broken' .*uninstall") as caught:
        open_slide(path)
    assert str(caught.value.__cause__) in str(caught.value)
    assert search_slides([path.parent]).slides == (path,)  # opening it says what is wrong


def test_scenes_are_refused(path, install):
    install(f"{__name__}:open_npy")
    with pytest.raises(SlideError, match="--scene 2"):
        open_slide(path, scene="2")
    assert open_slide(path, scene="1").format == "npy"
