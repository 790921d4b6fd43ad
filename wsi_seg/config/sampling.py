"""Owns the sections of a recipe that say where patches are drawn."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Share


class MixConfig(Section):
    """How often each layer of the importance map is drawn from, in proportion to the others.

    Parameters
    ----------
    objects
        Around annotated objects, each in turn: anywhere that a patch touches the object's box.
    regions
        Wherever a patch touches a class of the label ``sampling.regions_label``; pixels of objects
        are left out where ``objects`` is above 0.
    tissue, background
        Wherever a patch touches tissue; wherever it touches glass, and no object.
    empty
        Uniform by area over slides without any object, such as negative X-rays.
    boundary
        Cells that the outline of an object crosses.
    hard_negatives
        Where the last model was wrong, see ``wsi-seg mine``.
    """

    objects: Share = 0
    regions: dict[str, Share] = Field(default_factory=dict)
    tissue: Share = 0
    boundary: Share = 0
    hard_negatives: Share = 0
    background: Share = 0
    empty: Share = 0

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
    """How often an object of some size counts: small ones more often.

    Parameters
    ----------
    edges_mm
        Ascending diameters of circles of the objects' areas.
    repeats
        Times that an object below each edge counts in a round; as many as edges.
    above
        Objects from the last edge on: ``keep`` once, or ``drop``.
    """

    edges_mm: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    repeats: tuple[Annotated[int, Field(ge=0, le=1000)], ...]
    above: Literal["keep", "drop"] = "keep"

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
    bins: int = Field(default=4, ge=1, le=100)


class GridConfig(Section):
    """Patches on a grid over the tissue instead of draws from the map.

    Parameters
    ----------
    overlap
        Fraction that neighbouring patches share.
    shifted
        Move the grid by another random offset in each epoch.
    """

    overlap: float = Field(default=0.0, ge=0, le=0.9)
    shifted: bool = True


class SamplingConfig(Section):
    """Where patches are drawn.

    Parameters
    ----------
    mix
        Shares of the layers of the importance map.
    patches_per_epoch
        Rounded up to whole batches; null draws each object once, the other layers in proportion.
    unit
        What ``mix.objects`` takes in turn: each ``object``, or each ``slide`` that has any, for
        small images that are positive as a whole.
    regions_label
        Label whose classes ``mix.regions`` names.
    sizes, strata
        How objects are chosen among each other; null takes each equally often.
    balance
        Draw objects of each ``class`` or ``source`` as often as those of any other.
    sources
        Share of the draws around objects that each source gets, such as ``expert: 3, pseudo: 1``,
        in proportion to the others; objects of sources that are not named are not drawn around.
        Null draws all alike. Who drew is what ``wsi-seg annotate --source`` or the file says.
    grid
        Draw a grid instead of the mix; null draws the mix.
    weighted
        Weigh each patch in the loss by 1 / (N p), p its chance among N cells, so that the loss is
        that of the whole tissue; capped at 10.
    replay
        Share of an epoch that shows the patches with the highest loss of the epoch before once
        more, each a single time.
    cell_um
        Side of a cell of the importance map in micrometres.
    cell_px
        The same in pixels of level 0, used where ``mpp`` is null.
    """

    mix: MixConfig = MixConfig(objects=0.5, tissue=0.4, background=0.1)
    patches_per_epoch: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = 1000
    unit: Literal["object", "slide"] = "object"
    regions_label: str = "regions"
    sizes: SizesConfig | None = None
    strata: StrataConfig | None = None
    balance: Literal["none", "class", "source"] = "none"
    sources: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None
    grid: GridConfig | None = None
    weighted: bool = False
    replay: float = Field(default=0.0, ge=0, le=0.5)
    cell_um: float = Field(default=32.0, gt=0)
    cell_px: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _one_use_of_sources(self) -> Self:
        if self.sources and self.balance == "source":
            raise ValueError("got both sources and balance source; expected one of them")
        return self
