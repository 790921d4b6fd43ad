"""Owns the recipe section for intensity normalisation, applied before the model sees pixels."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Unit

Percent = Annotated[float, Field(ge=0, le=100)]


class LocalContrastConfig(Section):
    """Contrast-limited adaptive histogram equalisation (CLAHE; Zuiderveld 1994)."""

    kernel_px: Annotated[int, Unit("pixels of the level that is read")] = Field(
        default=64, ge=8, le=1024
    )
    """Side of the cells of the slide; each cell has its own curve."""
    clip: float = Field(default=2.0, ge=1, le=100)
    """Clip limit of a cell's histogram, as a multiple of the mean bin; the excess is redistributed
    over all bins."""


class IntensityConfig(Section):
    """Normalisation of intensities, the same in training and inference.

    Steps are applied in the order of the keys. Statistics are measured once per slide, on an
    overview of at most 2,048 pixels a side, so a pixel's value does not depend on the tile.
    """

    stain: Literal["none", "macenko", "reinhard"] = "none"
    """Normalise the colours of each slide to an H&E reference: ``macenko`` by its two stain vectors
    (Macenko et al., 2009), ``reinhard`` by mean and standard deviation (Reinhard et al., 2001)."""
    scale: Literal["none", "minmax", "percentiles", "slide"] = "none"
    """Scale the values of each slide linearly. ``minmax``: the minimum over all channels becomes 0,
    the maximum 255; ``percentiles``: the same with ``percentiles``; ``slide``: each channel gets
    the mean and standard deviation of ImageNet."""
    percentiles: tuple[Percent, Percent] = (1, 99)
    """Lower and upper percentile, which become 0 and 255."""
    clahe: LocalContrastConfig | None = None
    """Contrast-limited adaptive histogram equalisation; null skips it."""
    outside_tissue: Annotated[int | None, Field(ge=0, le=255)] = None
    """Grey value for all pixels outside the tissue mask (after `wsi-seg ct lungs`, the lung mask);
    null leaves them unchanged."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.percentiles[0] >= self.percentiles[1]:
            raise ValueError(f"got {list(self.percentiles)}; expected the lower percentile first")
        return self

    @property
    def is_on(self) -> bool:
        """Whether any step is enabled."""
        return self != IntensityConfig(percentiles=self.percentiles)
