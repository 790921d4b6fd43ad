"""Owns the recipe section for augmentation: the steps and their parameters."""

from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wsi_seg.config.section import Rising, Section, Share, Unit

Odd = Annotated[int, Field(ge=3, le=99)]
Positive = Annotated[float, Field(gt=0)]
Quality = Annotated[int, Field(ge=1, le=100)]


class Chance(Section):
    """A step that is applied with probability ``p``."""

    p: Share = 0.5
    """Probability of the step; inside ``one_of``, its weight relative to the others."""


class AffineConfig(Chance):
    """Rotate, scale and shift."""

    rotate: Annotated[float, Unit("degrees")] = Field(default=45, ge=0, le=180)
    """Largest rotation in either direction."""
    scale: Annotated[tuple[Positive, Positive], Rising, Unit("factor")] = (0.8, 1.2)
    """Smallest and largest scale."""
    shift: Annotated[Share, Unit("fraction of the side")] = 0.0625
    """Largest shift in either direction."""
    keep_ratio: bool = False
    """Scale height and width by the same factor."""


class SplineConfig(Chance):
    """Thin-plate-spline warp by random displacements of a grid of control points."""

    points: Annotated[int, Unit("points a side")] = Field(default=4, ge=2, le=20)
    """Size of the grid."""
    limit: Annotated[float, Unit("fraction of the side")] = Field(default=0.03, ge=0, le=0.1)
    """Largest standard deviation of the displacements."""


class ElasticConfig(Chance):
    """Elastic deformation."""

    alpha: Annotated[float, Unit("pixels")] = Field(default=120, gt=0)
    """Largest displacement before smoothing."""
    sigma: Annotated[float, Unit("pixels")] = Field(default=6, ge=1)
    """Standard deviation of the Gaussian that smooths the displacements."""


class GridConfig(Chance):
    """Grid distortion."""

    steps: Annotated[int, Unit("cells a side")] = Field(default=5, ge=1, le=100)
    """Size of the grid."""
    limit: Annotated[Share, Unit("fraction of a cell")] = 0.3
    """Largest displacement of a grid line."""


class StrengthConfig(Chance):
    """A step with a single strength."""

    limit: float = Field(default=0.2, ge=0, le=5)
    """Largest strength; for ``perspective``, as a fraction of the side."""


class ClaheConfig(Chance):
    """Contrast-limited adaptive histogram equalisation."""

    limit: float = Field(default=4, ge=1, le=40)
    """Upper bound of the clip limit, which is drawn from 1 upwards."""
    tiles: Annotated[int, Unit("tiles a side")] = Field(default=8, ge=1, le=64)
    """Tiles per patch."""


class BrightnessContrastConfig(Chance):
    """Brightness and contrast."""

    brightness: Annotated[Share, Unit("fraction of the full range")] = 0.2
    """Largest change of brightness in either direction."""
    contrast: Annotated[Share, Unit("fraction of the full range")] = 0.2
    """Largest change of contrast in either direction."""


class HsvConfig(Chance):
    """Hue, saturation and value."""

    hue: float = Field(default=10, ge=0, le=180)
    """Largest change of hue in either direction, on a scale of 0 to 180."""
    saturation: float = Field(default=20, ge=0, le=255)
    """Largest change of saturation in either direction, on a scale of 0 to 255."""
    value: float = Field(default=10, ge=0, le=255)
    """Largest change of value in either direction, on a scale of 0 to 255."""


class GammaConfig(Chance):
    """Gamma correction."""

    limit: Annotated[tuple[Positive, Positive], Rising, Unit("percent")] = (80, 120)
    """Smallest and largest gamma."""


class NoiseConfig(Chance):
    """Gaussian noise."""

    std: Annotated[tuple[Share, Share], Rising, Unit("fraction of the full range")] = (0.01, 0.04)
    """Smallest and largest standard deviation."""


class BlurConfig(Chance):
    """Gaussian blur."""

    px: Annotated[tuple[Odd, Odd], Rising, Unit("pixels")] = (3, 5)
    """Smallest and largest width of the kernel, both odd."""


class CompressionConfig(Chance):
    """JPEG compression."""

    quality: Annotated[tuple[Quality, Quality], Rising] = (40, 90)
    """Lowest and highest JPEG quality."""


class DropoutConfig(Chance):
    """Coarse dropout: holes in the image, not in the label."""

    holes: int = Field(default=8, ge=1, le=1000)
    """Largest number of holes."""
    side: Annotated[tuple[Share, Share], Rising, Unit("fraction of the patch")] = (0.05, 0.15)
    """Smallest and largest side of a hole."""


class StainConfig(Chance):
    """Jitter of the haematoxylin, eosin and DAB channels."""

    scale: Annotated[Share, Unit("factor")] = 0.2
    """Each stain is multiplied by a factor between 1 - scale and 1 + scale."""
    offset: Annotated[Share, Unit("optical density")] = 0.02
    """A value between -offset and offset is added to each stain."""


Six = tuple[float, float, float, float, float, float]


class RestainConfig(Chance):
    """Random stain normalisation (RandStainNA; Shen et al., 2022).

    The mean and standard deviation of a patch's L*, a* and b* are matched to values drawn from a
    normal distribution.
    """

    mean: Six | None = None
    """Mean of the distribution: for the means of L*, a* and b*, then for their standard deviations.
    Null measures it on the training slides."""
    deviation: Six | None = None
    """Standard deviation of the distribution, in the same order; null measures it, too."""


class OneOfConfig(Chance):
    """One of several steps, chosen at random."""

    of: tuple["StepConfig", ...] = Field(min_length=1)
    """Steps to choose from; their ``p`` are relative weights."""

    @model_validator(mode="after")
    def _any_weight(self) -> Self:
        if not any(step.chosen is not None and step.chosen.p for step in self.of):
            raise ValueError("got p 0 for all steps of one_of; expected at least one above 0")
        return self


class StepConfig(Section):
    """One step: exactly one of these keys."""

    hflip: Chance | None = None
    """Flip left to right."""
    vflip: Chance | None = None
    """Flip top to bottom."""
    rot90: Chance | None = None
    """Rotate by 90, 180 or 270 degrees."""
    d4: Chance | None = None
    """Any of the eight combinations of flips and 90-degree rotations."""
    affine: AffineConfig | None = None
    """Rotate, scale and shift."""
    perspective: StrengthConfig | None = None
    """Perspective transform."""
    spline: SplineConfig | None = None
    """Thin-plate-spline warp by random displacements of a grid of control points."""
    elastic: ElasticConfig | None = None
    """Elastic deformation."""
    grid: GridConfig | None = None
    """Grid distortion."""
    optical: StrengthConfig | None = None
    """Lens distortion."""
    brightness_contrast: BrightnessContrastConfig | None = None
    """Change brightness and contrast."""
    hsv: HsvConfig | None = None
    """Change hue, saturation and value."""
    gamma: GammaConfig | None = None
    """Gamma correction."""
    clahe: ClaheConfig | None = None
    """Contrast-limited adaptive histogram equalisation."""
    stain: StainConfig | None = None
    """Jitter the haematoxylin, eosin and DAB channels."""
    restain: RestainConfig | None = None
    """Random stain normalisation (RandStainNA)."""
    channel_shuffle: Chance | None = None
    """Shuffle the channels."""
    slice_flip: Chance | None = None
    """Reverse the order of context slices."""
    noise: NoiseConfig | None = None
    """Gaussian noise."""
    blur: BlurConfig | None = None
    """Gaussian blur."""
    compression: CompressionConfig | None = None
    """JPEG compression."""
    dropout: DropoutConfig | None = None
    """Coarse dropout: holes in the image, not in the label."""
    one_of: OneOfConfig | None = None
    """One of several steps, chosen at random."""

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
        """Omit the unset keys, so that a saved step validates again."""
        values: dict[str, object] = handler(self)
        return {key: value for key, value in values.items() if key in self.model_fields_set}

    @property
    def chosen(self) -> Chance | None:
        """Parameters of the step."""
        (name,) = self.model_fields_set
        settings: Chance | None = getattr(self, name)
        return settings


class MixBatchesConfig(Chance):
    """Mix the patches of a batch with each other."""

    kind: Literal["cutmix", "mixup"] = "cutmix"
    """``cutmix`` pastes a box of one patch into another, around foreground if there is any;
    ``mixup`` averages two patches and their labels."""
    alpha: float = Field(default=1.0, gt=0)
    """Parameter of the Beta distribution from which the mixing ratio is drawn; 1 is uniform."""


Preset = Literal["none", "d4", "light", "stain", "siim", "stas", "heavy"]
Augment = Preset | tuple[StepConfig, ...]
