"""Owns image sizes stated in annotation files, and their downsample to a slide."""

from wsi_seg.errors import AnnotationError, RegionError
from wsi_seg.geometry import Extent


def stated_extent(place: str, height: object, width: object) -> Extent:
    """Parse an image size from whole numbers in any form: ``300``, ``"300"``, ``300.0``.

    Parameters
    ----------
    place
        File and feature, for messages.
    height, width
        Values in the file.

    Raises
    ------
    AnnotationError
        If one of them is not a whole number above 0.
    """
    try:
        tall, wide = float(str(height)), float(str(width))
        if tall.is_integer() and wide.is_integer():
            return Extent(height=int(tall), width=int(wide))
    except (ValueError, OverflowError, RegionError) as error:
        raise AnnotationError(_sentence(place, height, width)) from error
    raise AnnotationError(_sentence(place, height, width))


def _sentence(place: str, height: object, width: object) -> str:
    return (
        f"{place}: got height {str(height)[:40]!r}, width {str(width)[:40]!r}; expected whole "
        "numbers above 0"
    )


def downsample_of(place: str, image: Extent, slide: Extent) -> tuple[float, float]:
    """Return the slide's pixels per pixel of an image of it, along y and x.

    Parameters
    ----------
    place
        File and feature, for messages.
    image, slide
        Their sizes.

    Raises
    ------
    AnnotationError
        If the image is larger than the slide, or has another aspect ratio.
    """
    tall, wide = slide.height / image.height, slide.width / image.width
    # The aspect ratio may differ by the rounding of one pixel.
    if tall < 1 or wide < 1 or abs(tall / wide - 1) > 1.5 / min(image.height, image.width):
        raise AnnotationError(
            f"{place} has {image}, its slide has {slide}; expected the same size, or the same "
            "aspect ratio at a lower resolution"
        )
    return tall, wide
