"""Plain images as slides of one level."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.makers.coordinates import coordinate_pixels
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import open_slide
from wsi_seg.testing.conformance import check_slide


def pixels(height=57, width=91):
    region = Region(level=0, y=0, x=0, height=height, width=width)
    return coordinate_pixels(region, Extent(height=height, width=width))


def clear(pixels, alpha):
    """White where alpha is 0."""
    return np.where(alpha[..., None] == 0, 255, pixels).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_images_conform(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels()).save(path, lossless=True)
    check_slide(path, [pixels()])


def test_grey_palette_alpha_and_16_bit(tmp_path):
    grey = pixels()[:, :, 1]
    wide = grey.astype(np.uint16) * 257
    three = np.repeat(grey[:, :, None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    check_slide(tmp_path / "grey.png", [three])
    Image.fromarray(wide).save(tmp_path / "wide.png")
    check_slide(tmp_path / "wide.png", [three])
    Image.fromarray(np.dstack([pixels(), grey])).save(tmp_path / "alpha.png")
    check_slide(tmp_path / "alpha.png", [clear(pixels(), grey)])


def test_limits_and_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(pixels()).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SlideError, match=r"a\.png"):
        open_slide(path).read(Region(level=0, y=0, x=0, height=57, width=91))
    path.write_bytes(b"")
    with pytest.raises(SlideError, match="empty"):
        open_slide(path)
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(UnsupportedSlideError, match="CMYK"):
        open_slide(tmp_path / "a.jpg")
    path.write_bytes(data)
    monkeypatch.setenv("WSI_SEG_MAX_TILE_PIXELS", "1000")
    with pytest.raises(UnsupportedSlideError, match="tiled TIFF"):
        open_slide(path)


def test_one_bit_and_several_frames(tmp_path):
    bits = pixels()[:, :, 1] > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    check_slide(tmp_path / "bits.png", [np.repeat(bits[:, :, None], 3, 2) * np.uint8(255)])
    frames = [Image.fromarray(pixels()), Image.fromarray(255 - pixels())]
    frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedSlideError, match="2 images in one file"):
        open_slide(tmp_path / "film.webp")


def test_decompression_bombs_are_refused_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (30_000, 30_000)).save(path)
    assert path.stat().st_size < 200_000
    with pytest.raises(UnsupportedSlideError, match=r"bomb\.png"):
        open_slide(path)


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_are_turned_as_viewers_show_them(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(np.repeat(pixels()[..., 1:2], 3, axis=2))
    smooth.save(path, exif=exif, quality=95)
    with Image.open(path) as image:
        check_slide(path, [np.array(ImageOps.exif_transpose(image))])


def test_sixteen_bits_and_extra_samples(tmp_path):
    wide = (np.arange(57 * 91 * 4) * 37 % 65536).astype(np.uint16).reshape(57, 91, 4)
    scaled = np.rint(wide / 257).astype(np.uint8)
    for samples, expected in (
        (3, scaled[..., :3]),
        (4, clear(scaled[..., :3], wide[..., 3])),
        (1, scaled[..., [0] * 3]),
    ):
        stored = np.ascontiguousarray(wide[..., :samples])
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(stored))
        check_slide(tmp_path / "a.png", [expected])
    Image.fromarray(pixels()[..., :2].copy(), "LA").save(tmp_path / "la.png")
    expected = clear(np.repeat(pixels()[..., :1], 3, axis=2), pixels()[..., 1])
    check_slide(tmp_path / "la.png", [expected])
    palette = Image.fromarray(pixels()).quantize(16)
    palette.save(tmp_path / "p.png", transparency=3)
    expected = clear(np.array(palette.convert("RGB")), np.asarray(palette) != 3)
    check_slide(tmp_path / "p.png", [expected])
    for suffix in ("webp", "gif"):
        rgba = np.dstack([pixels(), np.where(pixels()[..., 1] % 2, 255, 0).astype(np.uint8)])
        Image.fromarray(rgba).save(tmp_path / f"c.{suffix}", lossless=True)
        with Image.open(tmp_path / f"c.{suffix}") as image:
            shown = np.array(image.convert("RGBA"))
        assert (shown[..., 3] == 0).any()
        check_slide(tmp_path / f"c.{suffix}", [clear(shown[..., :3], shown[..., 3])])


def test_a_jpeg_cut_short_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels()).save(path)
    data = path.read_bytes()
    for length in range(len(data) // 2, len(data) - 1, 97):
        path.write_bytes(data[:length])
        with pytest.raises(SlideError, match=r"a\.jpg: .*cut off"):
            open_slide(path).read(Region(level=0, y=0, x=0, height=57, width=91))
