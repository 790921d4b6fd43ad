"""Owns the sizes that files state of their images, and what they mean for a slide of another."""

from wsi_seg.errors import AnnotationError, RegionError
from wsi_seg.geometry import Extent


def stated_extent(place: str, height: object, width: object) -> Extent:
    """Size that a file states, as whole numbers in any spelling: ``300``, ``"300"``, ``300.0``.

    Parameters
    ----------
    place
        File and feature, for messages.
    height, width
        As they stand in the file.

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
    """Pixels of a slide per pixel of an image of it, along y and along x.

    Parameters
    ----------
    place
        File and feature, for messages.
    image, slide
        Their sizes.

    Raises
    ------
    AnnotationError
        If the image is larger than the slide, or of another shape.
    """
    tall, wide = slide.height / image.height, slide.width / image.width
    # One pixel of rounding at the image's border is no other shape.
    if tall < 1 or wide < 1 or abs(tall / wide - 1) > 1.5 / min(image.height, image.width):
        raise AnnotationError(
            f"{place} has {image}, its slide has {slide}; expected the same, or the same shape at "
            "a lower resolution"
        )
    return tall, wide
