"""Owns how a model looks at slides: at which resolution, resized or not, with which context slices.

Training and inference look through the same view, so a model meets at inference what it learned.
"""

from dataclasses import dataclass

from wsi_seg.config import Recipe
from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.config.recipe import Resize
from wsi_seg.geometry import Extent, Pyramid
from wsi_seg.reading.intensity import prepared_image
from wsi_seg.reading.readable import Readable
from wsi_seg.reading.resample import Scale, scale_for
from wsi_seg.reading.slices import SliceStore, context_stack

_RGB = 3


@dataclass(frozen=True, slots=True)
class View:
    """How a model looks at slides.

    Parameters
    ----------
    mpp
        Micrometres per pixel; None for pixels of level 0 as they are.
    resize
        Resize each slide, whatever its size, to the square that the model sees, or to
        ``resize_px``: ``stretch`` fills it and changes the aspect, ``pad`` puts the whole slide
        inside and mirrors the rest, ``crop`` fills it, and what is longer stays. Several tiles
        cover what is larger than one. None keeps the slide's resolution.
    side
        Side in pixels of that square.
    context_slices
        Slices of the volume on either side that are seen with a slice. With any, each slice gives
        one channel of grey, in the order of z; with none, a slide gives RGB.
    context_step_mm
        From one of these slices to the next, see `context_stack`.
    intensity
        How grey values and colours are changed first.
    resize_px
        Height and width to resize to; None for that square.
    """

    mpp: float | None
    resize: Resize | None = None
    side: int = 0
    context_slices: int = 0
    context_step_mm: float | None = None
    intensity: IntensityConfig = IntensityConfig()  # noqa: RUF009 (frozen)
    resize_px: tuple[int, int] | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> "View":
        """View that a recipe trains with."""
        data = recipe.data
        return cls(
            recipe.mpp,
            recipe.resize,
            recipe.patch_px,
            data.context_slices,
            data.context_step_mm,
            recipe.intensity,
            recipe.resize_px,
        )

    @property
    def channels(self) -> int:
        """Channels of what is seen."""
        return channels_with(self.context_slices)

    def scale(self, pyramid: Pyramid, *, name: str) -> Scale:
        """Level that is read and the size it is resampled to; see `scale_for`."""
        if self.resize is None:
            return scale_for(pyramid, self.mpp, name=name)
        full, (height, width) = pyramid.extent, self.resize_px or (self.side, self.side)
        if self.resize == "stretch":
            extent = Extent(height=height, width=width)
        else:
            furthest = max if self.resize == "pad" else min
            ratio = furthest(full.height / height, full.width / width)
            extent = Extent(
                height=max(1, round(full.height / ratio)), width=max(1, round(full.width / ratio))
            )
        finest = min(full.height / extent.height, full.width / extent.width)
        return Scale(pyramid.level_at_or_below(max(1.0, finest)), extent)

    def image(self, store: SliceStore) -> Readable:
        """Pixels of a slide as the model sees them.

        Raises
        ------
        StoreError
            If neighbours are asked for and the slide is no slice of a volume, a neighbour has
            another size, or the distance of slices is asked for and not known; or the slide has no
            tissue mask whose outside could be painted over.
        """
        count = self.context_slices
        if not count:
            return prepared_image(store, self.intensity)
        return context_stack(store, count, self.context_step_mm, self.intensity)


def channels_with(context_slices: int) -> int:
    """Channels that a model sees with so many slices on either side."""
    return 2 * context_slices + 1 if context_slices else _RGB
