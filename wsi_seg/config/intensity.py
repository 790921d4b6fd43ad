"""Owns the section of a recipe that says how pixels are changed before any model sees them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Unit

Percent = Annotated[float, Field(ge=0, le=100)]


class LocalContrastConfig(Section):
    """Contrast-limited adaptive histogram equalisation (CLAHE; Zuiderveld 1994)."""

    kernel_px: Annotated[int, Unit("pixels of the level that is read")] = Field(
        default=64, ge=8, le=1024
    )
    """Side of the cells that the slide is cut into; each has a curve of its own."""
    clip: float = Field(default=2.0, ge=1, le=100)
    """How many times its mean a bin of a cell's histogram may have; what is above is spread over
    all bins."""


class IntensityConfig(Section):
    """How grey values and colours are changed, in training and in inference alike.

    Done in the order of the keys. What is measured for it is measured once per slide, from a
    picture of the whole of at most 2,048 pixels a side, so a pixel does not depend on the tile that
    shows it.
    """

    stain: Literal["none", "macenko", "reinhard"] = "none"
    """Bring the colours of each slide to those of a reference in H&E: ``macenko`` by its two stains
    (Macenko et al., 2009), ``reinhard`` by mean and deviation (Reinhard et al., 2001)."""
    scale: Literal["none", "minmax", "percentiles", "slide"] = "none"
    """Scale values of each slide linearly. ``minmax``: the darkest of all channels becomes 0, the
    brightest 255; ``percentiles`` the same of ``percentiles``; ``slide``: each channel gets the
    mean and deviation of ImageNet."""
    percentiles: tuple[Percent, Percent] = (1, 99)
    """Lower and upper percentile that become 0 and 255."""
    clahe: LocalContrastConfig | None = None
    """Equalise contrast cell by cell; null does not."""
    outside_tissue: Annotated[int | None, Field(ge=0, le=255)] = None
    """Grey of all pixels outside the tissue mask, which `wsi-seg ct lungs` makes that of the lungs;
    null leaves them."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.percentiles[0] >= self.percentiles[1]:
            raise ValueError("expected a lower percentile and a higher one")
        return self

    @property
    def is_on(self) -> bool:
        """Whether anything is changed."""
        return self != IntensityConfig(percentiles=self.percentiles)
