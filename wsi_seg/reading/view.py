"""Owns the input geometry of a model: resolution, resizing, and context slices.

Training and inference use the same view, so that a model sees the same pixels in both.
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
    """How slides are read as input of a model.

    Parameters
    ----------
    mpp
        Micrometres per pixel; None for level 0 as stored.
    resize
        Resize each slide to the model's square input, or to ``resize_px``. ``stretch`` fills it and
        changes the aspect ratio; ``pad`` fits the whole slide inside and mirrors the rest; ``crop``
        fits the shorter side, and the longer one extends beyond it. Images larger than a tile are
        covered by several. None keeps the resolution of ``mpp``.
    side
        Side of the square input in pixels.
    context_slices
        Number of neighbouring slices of a volume on each side. If above 0, each slice is one grey
        channel, in z order; if 0, the input is RGB.
    context_step_mm
        Distance from one of these slices to the next in mm; see `context_stack`.
    intensity
        Intensity and stain normalisation, which is applied first.
    resize_px
        Height and width to resize to; None for the square input.
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
        """Return the view that a recipe trains with."""
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
        """Number of input channels."""
        return channels_with(self.context_slices)

    def scale(self, pyramid: Pyramid, *, name: str) -> Scale:
        """Return the level to read and the size it is resampled to; see `scale_for`."""
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
        """Return the image of a slide as model input.

        Raises
        ------
        StoreError
            If context slices are requested and the slide is not a slice of a volume, slices differ
            in size, or their distance is needed and unknown; or if pixels outside the tissue are to
            be overwritten and the slide has no tissue mask.
        """
        count = self.context_slices
        if not count:
            return prepared_image(store, self.intensity)
        return context_stack(store, count, self.context_step_mm, self.intensity)


def channels_with(context_slices: int) -> int:
    """Return the number of input channels for a number of context slices on each side."""
    return 2 * context_slices + 1 if context_slices else _RGB
