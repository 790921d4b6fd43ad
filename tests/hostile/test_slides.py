"""Every named defect of a slide file, through `info` and `tile`."""

import os

import numpy as np
import pytest

from tests.hostile.made_pictures import write_hostile_dicoms, write_hostile_pictures
from tests.hostile.made_tiffs import write_hostile_tiffs
from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import open_slide
from wsi_seg.store import open_collection

# What is wrong there is no reason to refuse the pixels: they must be read right.
READABLE = {
    "description-not-utf-8", "endless-resolution", "laughing-ome", "lying-shape", "lying-svs",
    "nan-resolution", "zero-resolution", "zero-length-tile", "png-bomb", "spacing-of-nothing",
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("tiffs", "pictures", "dicoms"):
        (folder / name).mkdir()
    written = [
        *write_hostile_tiffs(folder / "tiffs").values(),
        *write_hostile_pictures(folder / "pictures").values(),
        *write_hostile_dicoms(folder / "dicoms").values(),
    ]
    assert len(written) > 70
    return written


def require_bounded(verbs, path, folder):
    """Both verbs end in time and in bounds; a slide is refused, or read and finished."""
    verbs("info", path, folder=folder).require_bounded()
    out = folder / "out" / "s.zarr"
    tiled = verbs("tile", path, "--out", out, "--json", folder=folder)
    if path.stem in READABLE:
        tiled.require_bounded()
        assert tiled.code == 0, f"{tiled}"
        return open_collection(out)[path.stem]
    tiled.require_refused(path.stem)
    assert not (out / path.stem).exists()
    return None


def test_every_defect_is_refused_or_read(verbs, corpus, tmp_path):
    for number, path in enumerate(corpus):
        folder = tmp_path / str(number)
        (folder / "out").mkdir(parents=True)
        store = require_bounded(verbs, path, folder)
        if store is not None and path.suffix in {".tif", ".svs"}:
            require_right_px(path, store, folder)


def require_right_px(path, store, folder):
    assert store.pyramid.mpp is None or store.pyramid.mpp == pytest.approx(0.5)
    good = folder / f"good{path.suffix}"
    write_coordinate_tiff(
        good,
        extents=(Extent(height=210, width=150), Extent(height=105, width=75)),
        codec="jpeg" if path.suffix == ".svs" else "deflate",
        tile_px=32,
        layout="svs" if path.suffix == ".svs" else "pages",
    )
    whole = Region(level=0, y=0, x=0, height=210, width=150)
    expected, found = open_slide(good).read(whole).copy(), store.image.read(whole)
    if path.stem == "zero-length-tile":  # said on stderr, and left out
        expected[:32, 96:128] = 255
    assert np.array_equal(found, expected)


def test_a_tile_without_bytes_is_said(verbs, corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (path,) = (path for path in corpus if path.stem == "zero-length-tile")
    info = verbs("info", path, folder=tmp_path)
    assert "1 tile without bytes in level 0, shown blank; the first is number 3" in info.stderr


def test_names_and_links_that_lead_elsewhere(verbs, tmp_path):
    slides = tmp_path / "slides"
    slides.mkdir()
    (tmp_path / "out").mkdir()
    write_coordinate_tiff(slides / "good.tif", extents=[Extent(height=80, width=90)])
    content = (slides / "good.tif").read_bytes()
    (slides / "loop.tif").symlink_to(slides / "loop.tif")
    (slides / "up").symlink_to(slides)
    for name in ("...tif", "..tif", "a\\..\\b.tif", "line\nbreak.tif", "-rf.tif"):
        (slides / name).write_bytes(content)
    with open(os.fsencode(slides) + b"/not-\xff-text.tif", "wb") as file:  # noqa: PTH123
        file.write(content)
    out = tmp_path / "out" / "s.zarr"
    verbs("info", slides, folder=tmp_path).require_bounded()
    tiled = verbs("tile", slides, "--out", out, folder=tmp_path)
    tiled.require_refused()
    for name in ("...tif", "..tif", ".partial.tif", "zarr.json.tif"):
        (slides / name).write_bytes(content)
        tiled = verbs("tile", slides / name, "--out", out, folder=tmp_path)
        tiled.require_refused("rename it")
    found = open_collection(out).names()
    assert "good" in found
    assert not {".", "..", ".partial", "zarr.json", "loop"} & set(found)
    for path in (tmp_path / "out").iterdir():
        assert path == out


@pytest.mark.slow
def test_real_malformed_files(verbs, shared_data, tmp_path):
    files = sorted(
        path for path in (shared_data / "hostile-tiff").rglob("*.*")
        if path.suffix not in {".md", ".csv", ".txt"} and path.is_file()
    )  # fmt: skip
    assert len(files) > 90
    for number, path in enumerate(files):
        folder = tmp_path / str(number)
        (folder / "out").mkdir(parents=True)
        verbs("tile", path, "--out", folder / "out" / "s.zarr", folder=folder).require_bounded()
