"""Owns warnings about a prediction: its resolution, overrides, unreadable tiles."""

from wsi_seg.geometry import Pyramid
from wsi_seg.reading.resample import COARSEST_SLIDE
from wsi_seg.store import SlideStore


def cautions(slide: SlideStore | None, found: SlideStore) -> list[str]:
    """List reasons not to trust a prediction.

    Parameters
    ----------
    slide
        Store of the slide; None if it is not available.
    found
        Its prediction.

    Returns
    -------
    list[str]
        Warnings; empty if there are none.

    Raises
    ------
    StoreError
        If the attributes of the prediction are invalid.

    Examples
    --------
    >>> cautions(slides["a"], predictions["a"])  # doctest: +SKIP
    ['a: the model states no um per pixel: level 0 was read as it is']
    """
    prediction = found.prediction
    lines = list(prediction.notes)
    if prediction.learned_from_slide:
        lines.append("the model was trained on this slide; expect more errors on others")
    if prediction.tiles == 0:
        lines.append("it has no tissue, so nothing was predicted")
    lines = [f"{found.name}: {line}" for line in lines]
    if (unread := found.warning) is not None:
        lines.append(unread)
    width = None if slide is None else _width_um(slide.pyramid)
    old = _width_um(found.pyramid)
    if width is not None and old is not None and max(width / old, old / width) > COARSEST_SLIDE:
        lines.append(
            f"{found.name}: the slide is {width:,.0f} µm wide, but was {old:,.0f} µm wide when it "
            "was predicted; its um per pixel has changed since"
        )
    return lines


def _width_um(pyramid: Pyramid) -> float | None:
    return None if pyramid.mpp is None else pyramid.mpp * pyramid.extent.width
