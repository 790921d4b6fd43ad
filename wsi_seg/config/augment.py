"""Owns the section of a recipe that lists how patches are changed before the model sees them."""

from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wsi_seg.config.section import Section, Share, Unit

Limit = Annotated[float, Field(ge=0, le=1)]
Odd = Annotated[int, Field(ge=3, le=99)]
Positive = Annotated[float, Field(gt=0)]
Quality = Annotated[int, Field(ge=1, le=100)]


class Chance(Section):
    """A change that happens with probability ``p``."""

    p: Share = 0.5
    """Probability of the change; a weight among the others inside ``one_of``."""


class AffineConfig(Chance):
    """Rotate, scale and shift."""

    rotate: Annotated[float, Unit("degrees")] = Field(default=45, ge=0, le=180)
    """Largest rotation either way."""
    scale: Annotated[tuple[Positive, Positive], Unit("factor")] = (0.8, 1.2)
    """Smallest and largest scale."""
    shift: Annotated[Limit, Unit("part of the side")] = 0.0625
    """Largest shift either way."""
    keep_ratio: bool = False
    """Scale both sides alike."""


class SplineConfig(Chance):
    """Points of a grid moved at random, and smoothly what is between them (thin-plate spline)."""

    points: Annotated[int, Unit("points a side")] = Field(default=4, ge=2, le=20)
    """Size of the grid."""
    limit: Annotated[float, Unit("part of the side")] = Field(default=0.03, ge=0, le=0.1)
    """Largest standard deviation of the moves."""


class ElasticConfig(Chance):
    """Elastic deformation."""

    alpha: Annotated[float, Unit("pixels")] = Field(default=120, gt=0)
    """Largest displacement before smoothing."""
    sigma: Annotated[float, Unit("pixels")] = Field(default=6, gt=0)
    """Standard deviation of the Gaussian that smooths displacements."""


class GridConfig(Chance):
    """Distortion of a grid."""

    steps: Annotated[int, Unit("cells a side")] = Field(default=5, ge=1, le=100)
    """Size of the grid."""
    limit: Annotated[Limit, Unit("part of a cell")] = 0.3
    """Largest move of a line of the grid."""


class StrengthConfig(Chance):
    """A change of limited strength."""

    limit: float = Field(default=0.2, ge=0, le=5)
    """Largest strength: part of the side for ``perspective``."""


class ClaheConfig(Chance):
    """Contrast-limited adaptive histogram equalisation."""

    limit: float = Field(default=4, ge=1, le=40)
    """Largest clip limit, which is drawn from 1 on."""
    tiles: Annotated[int, Unit("tiles a side")] = Field(default=8, ge=1, le=64)
    """Tiles that a patch is cut into."""


class BrightnessContrastConfig(Chance):
    """Brightness and contrast."""

    brightness: Annotated[Limit, Unit("part of the full range")] = 0.2
    """Largest change of brightness either way."""
    contrast: Annotated[Limit, Unit("part of the full range")] = 0.2
    """Largest change of contrast either way."""


class HsvConfig(Chance):
    """Hue, saturation and value."""

    hue: float = Field(default=10, ge=0, le=180)
    """Largest change of the hue either way, of 180."""
    saturation: float = Field(default=20, ge=0, le=255)
    """Largest change of the saturation either way, of 255."""
    value: float = Field(default=10, ge=0, le=255)
    """Largest change of the value either way, of 255."""


class GammaConfig(Chance):
    """Gamma correction."""

    limit: Annotated[tuple[Positive, Positive], Unit("percent")] = (80, 120)
    """Smallest and largest gamma."""


class NoiseConfig(Chance):
    """Gaussian noise."""

    std: Annotated[tuple[Limit, Limit], Unit("part of the full range")] = (0.01, 0.04)
    """Smallest and largest standard deviation."""


class BlurConfig(Chance):
    """Gaussian blur."""

    px: Annotated[tuple[Odd, Odd], Unit("pixels")] = (3, 5)
    """Smallest and largest width of the kernel, both odd."""


class CompressionConfig(Chance):
    """JPEG compression."""

    quality: tuple[Quality, Quality] = (40, 90)
    """Lowest and highest JPEG quality."""


class DropoutConfig(Chance):
    """Holes in the image, not in the label."""

    holes: int = Field(default=8, ge=1, le=1000)
    """Largest number of holes."""
    side: Annotated[tuple[Limit, Limit], Unit("part of the patch")] = (0.05, 0.15)
    """Smallest and largest side of a hole."""


class StainConfig(Chance):
    """Amounts of haematoxylin, eosin and DAB."""

    scale: Annotated[Limit, Unit("factor")] = 0.2
    """Each stain is multiplied by up to 1 plus or minus this."""
    offset: Annotated[Limit, Unit("optical density")] = 0.02
    """Up to plus or minus this is added to each stain."""


Six = tuple[float, float, float, float, float, float]


class RestainConfig(Chance):
    """Colours as another slide of the training set might have them.

    Mean and deviation of a patch's L*, a* and b* are brought to some that are drawn from a normal
    distribution, as RandStainNA does (Shen et al. 2022).
    """

    mean: Six | None = None
    """Middle of the distribution: of the means of L*, a* and b*, then of their deviations. Null is
    measured on the slides that are learned from."""
    deviation: Six | None = None
    """Its standard deviation; null is measured, too."""


class OneOfConfig(Chance):
    """One of several changes."""

    of: tuple["StepConfig", ...] = Field(min_length=1)
    """Changes to choose from; their own ``p`` are weights among each other."""


class StepConfig(Section):
    """One change: exactly one of these keys."""

    hflip: Chance | None = None
    """Flip left to right."""
    vflip: Chance | None = None
    """Flip top to bottom."""
    rot90: Chance | None = None
    """One to three quarter turns."""
    d4: Chance | None = None
    """Any of the eight flips and quarter turns."""
    affine: AffineConfig | None = None
    """Rotate, scale and shift."""
    perspective: StrengthConfig | None = None
    """Change of perspective."""
    spline: SplineConfig | None = None
    """Deformation by a grid of points that move at random."""
    elastic: ElasticConfig | None = None
    """Elastic deformation."""
    grid: GridConfig | None = None
    """Distortion of a grid."""
    optical: StrengthConfig | None = None
    """Distortion of a lens."""
    brightness_contrast: BrightnessContrastConfig | None = None
    """Change of brightness and contrast."""
    hsv: HsvConfig | None = None
    """Change of hue, saturation and value."""
    gamma: GammaConfig | None = None
    """Gamma correction."""
    clahe: ClaheConfig | None = None
    """Contrast-limited adaptive histogram equalisation."""
    stain: StainConfig | None = None
    """Change of the amounts of haematoxylin, eosin and DAB."""
    restain: RestainConfig | None = None
    """Colours drawn from the distribution of the training set."""
    channel_shuffle: Chance | None = None
    """Shuffle the channels."""
    slice_flip: Chance | None = None
    """Reverse the order of the slices that are seen as channels."""
    noise: NoiseConfig | None = None
    """Gaussian noise."""
    blur: BlurConfig | None = None
    """Gaussian blur."""
    compression: CompressionConfig | None = None
    """JPEG compression."""
    dropout: DropoutConfig | None = None
    """Holes in the image, not in the label."""
    one_of: OneOfConfig | None = None
    """One of several changes."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.chosen is None:
            raise ValueError(
                f"got {', '.join(sorted(self.model_fields_set)) or 'nothing'} as one step; "
                "expected one key, for example {hflip: {p: 0.5}}"
            )
        return self

    @model_serializer(mode="wrap")
    def _only_chosen(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out the other keys, so that what is saved can be read again."""
        values: dict[str, object] = handler(self)
        return {key: value for key, value in values.items() if key in self.model_fields_set}

    @property
    def chosen(self) -> Chance | None:
        """Settings of the one change."""
        (name,) = self.model_fields_set
        settings: Chance | None = getattr(self, name)
        return settings


class MixBatchesConfig(Chance):
    """Mix the patches of a batch with each other."""

    kind: Literal["cutmix", "mixup"] = "cutmix"
    """``cutmix`` puts a box of one patch into another, around foreground where there is any;
    ``mixup`` averages two patches and their labels."""
    alpha: float = Field(default=1.0, gt=0)
    """Parameter of the Beta distribution that the share of each patch is drawn from; 1 is
    uniform."""


Preset = Literal["none", "d4", "light", "stain", "siim", "stas", "heavy"]
Augment = Preset | tuple[StepConfig, ...]
