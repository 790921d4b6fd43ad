"""Owns colours as a file's ICC profile means them: a reader that turns those of another to sRGB."""

import hashlib
import io
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides.slide import NotCopyable, Slide

_TIFF_PROFILE = 34675


class IccSlide(Slide):
    """A slide whose colours are converted from its ICC profile to sRGB as they are read.

    Parameters
    ----------
    slide
        Reads the pixels.
    profile
        The profile, as `read_profile` gives it.
    """

    def __init__(self, slide: Slide, profile: bytes) -> None:
        self._slide, self._profile = slide, profile
        self.path, self.name, self.format = slide.path, slide.name, slide.format
        self.pyramid, self.mpp_source = slide.pyramid, slide.mpp_source
        self.scene, self.slice_mm = slide.scene, slide.slice_mm
        self.icc = hashlib.sha256(profile).hexdigest()
        _transform(profile, slide.path)  # a damaged one is found out here

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region in sRGB, see `Slide.read_region`."""
        pixels = Image.fromarray(self._slide.read_region(region))
        # One of its own for each call: they are not to be shared among threads.
        ImageCms.applyTransform(pixels, _transform(self._profile, self.path), inPlace=True)
        return np.array(pixels)

    def streams(self, level: int) -> NotCopyable:
        """Say that no stream can be copied: its pixels change."""
        del level
        return NotCopyable("its colours are converted by its ICC profile")

    def native_block(self, level: int) -> Extent:
        """Size of the blocks of the file."""
        return self._slide.native_block(level)

    def close(self) -> None:
        """Release what the reader holds."""
        self._slide.close()


def converted(slide: Slide) -> IccSlide:
    """Give a slide whose colours are converted by the profile in its file.

    Raises
    ------
    UnsupportedSlideError
        If its file has no profile, or one of another kind than RGB.
    SlideError
        If the profile is damaged.
    """
    profile = read_profile(slide.path)
    if profile is None:
        raise UnsupportedSlideError(
            f"{slide.path}: got no ICC profile in the file; expected one in a TIFF, PNG or JPEG; "
            "tile it without --icc"
        )
    return IccSlide(slide, profile)


def read_profile(path: Path) -> bytes | None:
    """ICC profile of a TIFF, PNG or JPEG file; None where it has none, or is of another kind."""
    try:
        with tifffile.TiffFile(path) as tiff:
            tag = tiff.pages.first.tags.get(_TIFF_PROFILE)
            return None if tag is None else bytes(tag.value)
    except (tifffile.TiffFileError, OSError):
        pass
    try:
        with Image.open(path) as image:
            found: bytes | None = image.info.get("icc_profile")
            return found
    except (UnidentifiedImageError, OSError):
        return None


def _transform(profile: bytes, path: Path) -> ImageCms.ImageCmsTransform:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise SlideError(
            f"{path}: got an ICC profile that cannot be used ({error}); expected one of RGB; tile "
            "it without --icc"
        ) from error
