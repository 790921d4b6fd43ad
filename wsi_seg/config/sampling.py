"""Owns the sections of a recipe that say where patches are drawn."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Share, Unit


class MixConfig(Section):
    """How often each layer of the importance map is drawn from, in proportion to the others."""

    objects: Share = 0
    """Around annotated objects, each in turn: anywhere that a patch touches the object's box."""
    regions: dict[str, Share] = Field(default_factory=dict)
    """Wherever a patch touches a class, by name, of the label ``sampling.regions_label``; pixels of
    objects are left out where ``objects`` is above 0."""
    tissue: Share = 0
    """Wherever a patch touches tissue."""
    boundary: Share = 0
    """Cells that the outline of an object crosses."""
    hard_negatives: Share = 0
    """Where the last model was wrong, see ``wsi-seg mine``."""
    background: Share = 0
    """Wherever a patch touches what is not tissue, and no object."""
    empty: Share = 0
    """Uniform by area over slides without any object, such as negative X-rays."""

    @model_validator(mode="after")
    def _anything(self) -> Self:
        if self.total <= 0:
            raise ValueError("all shares are 0; expected at least one above 0")
        return self

    @property
    def total(self) -> float:
        """Sum that the shares are parts of."""
        areas = self.tissue + self.background + self.empty
        cells = self.boundary + self.hard_negatives
        return self.objects + sum(self.regions.values()) + areas + cells


class SizesConfig(Section):
    """How often an object of some size counts: small ones more often."""

    edges_mm: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Unit("mm")] = Field(min_length=1)
    """Ascending diameters: those of lesions, where objects are slices of them, else of circles of
    the objects' areas."""
    repeats: tuple[Annotated[int, Field(ge=0, le=1000)], ...]
    """How many times an object below each edge counts in a round; as many as edges."""
    above: Literal["keep", "drop"] = "keep"
    """Objects from the last edge on: ``keep`` them once, or ``drop`` them."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if len(self.repeats) != len(self.edges_mm) or list(self.edges_mm) != sorted(
            set(self.edges_mm)
        ):
            raise ValueError("expected ascending edges_mm and as many repeats")
        return self


class StrataConfig(Section):
    """Objects in bins by the share of a patch that they cover; each bin is drawn as often.

    An object that covers the share ``a`` is in bin ``round(a * scale)``, at most ``bins``.
    """

    scale: float = Field(default=20.0, gt=0)
    """Bins per patch covered."""
    bins: int = Field(default=4, ge=1, le=100)
    """Number of the last bin."""


class GridConfig(Section):
    """Patches on a grid over the tissue in place of draws from the map."""

    overlap: Annotated[float, Unit("part of the side")] = Field(default=0.0, ge=0, le=0.9)
    """How much neighbouring patches share."""
    shifted: bool = True
    """Move the grid by another random offset in each epoch."""


class SamplingConfig(Section):
    """Where patches are drawn."""

    mix: MixConfig = MixConfig(objects=0.5, tissue=0.4, background=0.1)
    """Shares of the layers of the importance map."""
    patches_per_epoch: Annotated[int | None, Field(ge=1, le=2**31 - 1), Unit("patches")] = 1000
    """Length of an epoch, rounded up to full batches; null draws each object once, the other
    layers in proportion."""
    unit: Literal["object", "lesion", "slide"] = "object"
    """What ``mix.objects`` takes in turn: each ``object``; each ``lesion`` of a volume, on any of
    the slices that show it; or each ``slide`` that has any, for small images that are positive as
    a whole. Lesions are known of spheres in mm; what is not of one is taken as an object."""
    regions_label: str = "regions"
    """Label whose classes ``mix.regions`` names."""
    sizes: SizesConfig | None = None
    """How often an object of some size is chosen; null takes all sizes equally often."""
    strata: StrataConfig | None = None
    """Bins of objects that are drawn equally often; null has no bins."""
    balance: Literal["none", "class", "source"] = "none"
    """Draw objects of each ``class`` or ``source`` as often as those of any other."""
    sources: Annotated[dict[str, Annotated[float, Field(gt=0)]] | None, Field(min_length=1)] = None
    """Share of the draws around objects that each source gets, such as ``expert: 3, pseudo: 1``,
    in proportion to the others; objects of other sources are not drawn around. Null draws all
    alike. The source is what ``wsi-seg annotate --source`` or the file says."""
    grid: GridConfig | None = None
    """Draw patches on a grid in place of the mix; null draws the mix."""
    weighted: bool = False
    """Weigh each patch in the loss by 1 / (N p), p its chance among N cells, capped at 10, so that
    the loss is that of the whole tissue."""
    replay: Annotated[float, Unit("part of an epoch")] = Field(default=0.0, ge=0, le=0.5)
    """How much of an epoch shows the patches with the highest loss of the epoch before again,
    each once."""
    cell_um: Annotated[float, Unit("um")] = Field(default=32.0, gt=0)
    """Side of a cell of the importance map."""
    cell_px: Annotated[int, Unit("pixels of level 0")] = Field(default=64, ge=1)
    """The same where ``mpp`` is null."""

    @model_validator(mode="after")
    def _one_use_of_sources(self) -> Self:
        if self.sources and self.balance == "source":
            raise ValueError("got both sources and balance source; expected one of them")
        return self
