"""Owns what to know before a prediction is trusted: its resolution, overrides, lost tiles."""

from wsi_seg.geometry import Pyramid
from wsi_seg.reading.resample import COARSEST_SLIDE
from wsi_seg.store import SlideStore


def cautions(slide: SlideStore | None, found: SlideStore) -> list[str]:
    """Say what to know before a prediction is trusted.

    Parameters
    ----------
    slide
        The slide that was predicted; None where it is not at hand.
    found
        Its prediction.

    Returns
    -------
    list[str]
        Sentences; none where there is nothing to say.

    Raises
    ------
    StoreError
        If what the prediction says of itself does not fit.

    Examples
    --------
    >>> cautions(slides["a"], predictions["a"])  # doctest: +SKIP
    ['a: the model states no um per pixel: level 0 was read as it is']
    """
    said = found.prediction
    lines = list(said.notes)
    if said.learned_from_slide:
        lines.append("the model has learned from this slide; elsewhere it errs more often")
    if said.tiles == 0:
        lines.append("no tile of it shows tissue, so nothing was predicted")
    lines = [f"{found.name}: {line}" for line in lines]
    if (unread := found.warning) is not None:
        lines.append(unread)
    width = None if slide is None else _width_um(slide.pyramid)
    then = _width_um(found.pyramid)
    if width is not None and then is not None and max(width / then, then / width) > COARSEST_SLIDE:
        lines.append(
            f"{found.name}: the slide is {width:,.0f} µm wide, and was {then:,.0f} µm wide when it "
            "was predicted; its um per pixel have changed since"
        )
    return lines


def _width_um(pyramid: Pyramid) -> float | None:
    return None if pyramid.mpp is None else pyramid.mpp * pyramid.extent.width
