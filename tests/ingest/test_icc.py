"""Colours are converted by a file's ICC profile where that is asked for, and stores say so."""

import hashlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from wsi_seg.errors import SlideError, StoreError
from wsi_seg.geometry import Region
from wsi_seg.ingest.names import name_slides
from wsi_seg.ingest.run import tile_slides
from wsi_seg.ingest.verify import verify_slides
from wsi_seg.progress import Silent
from wsi_seg.slides.window import OpenOptions
from wsi_seg.store import open_collection

ICC = OpenOptions(icc=True)


def exchanged():
    """Profile of a scanner that is sRGB, but for its red, which is what others call blue."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"____"), (b"bXYZ", b"rXYZ"), (b"____", b"bXYZ")):
        assert data.count(old) == 1
        data = data.replace(old, new)
    return data


@pytest.fixture
def pixels():
    y, x = np.mgrid[:200, :300]
    return np.stack([x * 255 // 300, np.full_like(x, 60), y * 255 // 200], -1).astype(np.uint8)


def write(folder, kind, pixels, profile):
    path = folder / f"one.{kind}"
    if kind == "tif":
        # A compression that could be copied as it is.
        more = {} if profile is None else {"iccprofile": profile}
        tifffile.imwrite(
            path, pixels, tile=(64, 64), photometric="rgb", compression="deflate", **more
        )
    else:
        Image.fromarray(pixels).save(path, icc_profile=profile)
    return path


def stored(folder):
    (store,) = open_collection(folder)
    region = Region(level=0, y=0, x=0, height=200, width=300)
    return store, store.image.read(region).astype(int)


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_colours_are_converted_on_request_alone(tmp_path, kind, pixels):
    profile = exchanged()
    path = write(tmp_path, kind, pixels, profile)
    tile_slides([path], tmp_path / "plain.zarr")
    tile_slides([path], tmp_path / "icc.zarr", opening=ICC)
    plain, as_they_are = stored(tmp_path / "plain.zarr")
    store, found = stored(tmp_path / "icc.zarr")
    np.testing.assert_array_equal(as_they_are, pixels)
    assert np.abs(found - pixels[..., ::-1]).max() <= 2
    assert plain.info.icc is None
    assert store.info.icc == hashlib.sha256(profile).hexdigest()
    assert all("ICC" in level.reason for level in store.info.levels[:1])
    collection = open_collection(tmp_path / "icc.zarr")
    assert not verify_slides(name_slides([path]), collection, progress=Silent()).failures
    # A store of the other colours is never taken for this one.
    with pytest.raises(StoreError, match="differs in icc"):
        tile_slides([path], tmp_path / "plain.zarr", opening=ICC)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, "got no ICC profile"),
        (b"no profile", "cannot be used"),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "cannot be used"),
    ],
)
def test_a_file_without_a_usable_profile_is_named(tmp_path, pixels, profile, message):
    path = write(tmp_path, "tif", pixels, profile)
    with pytest.raises(SlideError, match=f"{message}.*tile it without --icc"):
        tile_slides([path], tmp_path / "s.zarr", opening=ICC)
