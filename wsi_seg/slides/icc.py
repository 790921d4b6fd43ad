"""Owns ICC colour management: a slide that converts the colours of another slide to sRGB."""

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
    """A slide whose colours are converted from its ICC profile to sRGB on reading.

    Parameters
    ----------
    slide
        The slide to convert.
    profile
        The profile, as returned by `read_profile`.
    """

    def __init__(self, slide: Slide, profile: bytes) -> None:
        self._slide, self._profile = slide, profile
        self.path, self.name, self.format = slide.path, slide.name, slide.format
        self.pyramid, self.mpp_source = slide.pyramid, slide.mpp_source
        self.scene, self.slice_mm = slide.scene, slide.slice_mm
        self.icc = hashlib.sha256(profile).hexdigest()
        _transform(profile, slide.path)  # raises for a damaged profile

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region in sRGB; see `Slide.read_region`."""
        pixels = Image.fromarray(self._slide.read_region(region))
        # A new transform for each call: they are not thread-safe.
        ImageCms.applyTransform(pixels, _transform(self._profile, self.path), inPlace=True)
        return np.array(pixels)

    def streams(self, level: int) -> NotCopyable:
        """Return no streams: the conversion changes the pixels."""
        del level
        return NotCopyable("its colours are converted by its ICC profile")

    def native_block(self, level: int) -> Extent:
        """Return the block size of the slide that is converted."""
        return self._slide.native_block(level)

    def close(self) -> None:
        """Close the slide that is converted."""
        self._slide.close()


def converted(slide: Slide) -> IccSlide:
    """Return a slide whose colours are converted to sRGB with the profile in its file.

    Raises
    ------
    UnsupportedSlideError
        If its file has no ICC profile.
    SlideError
        If the profile is damaged, or is not an RGB profile.
    """
    profile = read_profile(slide.path)
    if profile is None:
        raise UnsupportedSlideError(
            f"{slide.path}: got no ICC profile in the file; expected one in a TIFF, PNG or JPEG; "
            "tile it without --icc"
        )
    return IccSlide(slide, profile)


def read_profile(path: Path) -> bytes | None:
    """Return the ICC profile of a TIFF, PNG or JPEG file; None if there is none to read."""
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
            f"{path}: got an ICC profile that cannot be used ({error}); expected an RGB profile; "
            "tile it without --icc"
        ) from error
