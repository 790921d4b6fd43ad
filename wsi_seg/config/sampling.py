"""Owns the recipe sections for patch sampling."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Share, Unit


class MixConfig(Section):
    """Relative frequency of each layer of the importance map."""

    objects: Share = 0
    """Around annotated objects, each in turn: anywhere that the patch overlaps the object's
    bounding box."""
    regions: dict[str, Share] = Field(default_factory=dict)
    """By class name: anywhere that the patch overlaps this class of ``sampling.regions_label``;
    pixels of objects are excluded if ``objects`` is above 0."""
    tissue: Share = 0
    """Anywhere that the patch overlaps tissue."""
    boundary: Share = 0
    """Cells that the outline of an object crosses."""
    hard_negatives: Share = 0
    """Where a previous model was wrong; see ``wsi-seg mine``."""
    background: Share = 0
    """Anywhere that the patch overlaps background and no object."""
    empty: Share = 0
    """Uniform by area over slides without any object, such as negative X-rays."""

    @model_validator(mode="after")
    def _anything(self) -> Self:
        if self.total <= 0:
            raise ValueError("all shares are 0; expected at least one above 0")
        return self

    @property
    def total(self) -> float:
        """Sum of all shares."""
        areas = self.tissue + self.background + self.empty
        cells = self.boundary + self.hard_negatives
        return self.objects + sum(self.regions.values()) + areas + cells


class SizesConfig(Section):
    """Repeats of objects by size, for example to draw small ones more often."""

    edges_mm: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Unit("mm")] = Field(min_length=1)
    """Ascending diameters: of the lesion, where objects are slices of a lesion; otherwise of the
    circle with the object's area."""
    repeats: tuple[Annotated[int, Field(ge=0, le=1000)], ...]
    """Number of draws of an object below each edge per pass; as many values as edges."""
    above: Literal["keep", "drop"] = "keep"
    """Objects at or above the last edge: ``keep`` them once per pass, or ``drop`` them."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if len(self.repeats) != len(self.edges_mm) or list(self.edges_mm) != sorted(
            set(self.edges_mm)
        ):
            raise ValueError("expected ascending edges_mm, and as many repeats as edges_mm")
        return self


class StrataConfig(Section):
    """Bins of objects by the fraction of a patch that they cover; each bin is drawn equally often.

    An object that covers the fraction ``a`` is in bin ``round(a * scale)``, at most ``bins``.
    """

    scale: float = Field(default=20.0, gt=0)
    """Bins per unit of covered fraction."""
    bins: int = Field(default=4, ge=1, le=100)
    """Index of the last bin."""


class GridConfig(Section):
    """Patches on a regular grid over the tissue instead of draws from the importance map."""

    overlap: Annotated[float, Unit("fraction of the side")] = Field(default=0.0, ge=0, le=0.9)
    """Overlap of neighbouring patches."""
    shifted: bool = True
    """Shift the grid by a new random offset in each epoch."""


class SamplingConfig(Section):
    """Where patches are drawn."""

    mix: MixConfig = MixConfig(objects=0.5, tissue=0.4, background=0.1)
    """Relative frequency of each layer of the importance map."""
    patches_per_epoch: Annotated[int | None, Field(ge=1, le=2**31 - 1), Unit("patches")] = 1000
    """Length of an epoch, rounded up to full batches; null draws each object once and the other
    layers in proportion."""
    unit: Literal["object", "lesion", "slide"] = "object"
    """What ``mix.objects`` cycles through: each ``object``; each ``lesion`` of a volume, on any
    slice that shows it; or each ``slide`` with objects, for small images labelled as a whole.
    Lesions come from spheres in mm; objects outside them count as lesions of their own."""
    regions_label: str = "regions"
    """Label whose classes ``mix.regions`` names."""
    sizes: SizesConfig | None = None
    """Repeats of objects by size; null draws all sizes equally often."""
    strata: StrataConfig | None = None
    """Bins of objects by covered fraction, drawn equally often; null uses no bins."""
    balance: Literal["none", "class", "source"] = "none"
    """Draw the objects of each ``class`` or ``source`` equally often."""
    sources: Annotated[dict[str, Annotated[float, Field(gt=0)]] | None, Field(min_length=1)] = None
    """Relative frequency of each source among the draws around objects, such as ``expert: 3,
    pseudo: 1``; objects of sources that are not listed are not drawn. Null ignores sources. The
    source is set by ``wsi-seg annotate --source`` or in the annotation file."""
    grid: GridConfig | None = None
    """Draw patches on a grid instead of from the mix; null uses the mix."""
    weighted: bool = False
    """Weight each patch in the loss by 1 / (N p), where p is its probability among N cells, capped
    at 10, so that the loss estimates that of the whole tissue."""
    replay: Annotated[float, Unit("fraction of an epoch")] = Field(default=0.0, ge=0, le=0.5)
    """Fraction of an epoch that repeats the patches with the highest loss in the previous epoch,
    each at most once."""
    cell_um: Annotated[float, Unit("um")] = Field(default=32.0, gt=0)
    """Side of a cell of the importance map."""
    cell_px: Annotated[int, Unit("pixels of level 0")] = Field(default=64, ge=1)
    """Side of a cell of the importance map where ``mpp`` is null."""

    @model_validator(mode="after")
    def _one_use_of_sources(self) -> Self:
        if self.sources and self.balance == "source":
            raise ValueError("got both sources and balance source; expected one of them")
        return self
