"""Owns the section of a recipe that lists how patches are changed before the model sees them."""

from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wsi_seg.config.section import Section, Share

Limit = Annotated[float, Field(ge=0, le=1)]
Odd = Annotated[int, Field(ge=3, le=99)]


class Chance(Section):
    """A change that happens with probability ``p``."""

    p: Share = 0.5


class AffineConfig(Chance):
    """Turn (degrees either way), scale (from, to) and shift (part of the side either way)."""

    rotate: float = Field(default=45, ge=0, le=180)
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.8, 1.2)
    shift: Limit = 0.0625


class ElasticConfig(Chance):
    """Displacements of up to ``alpha`` pixels, smoothed over ``sigma`` pixels."""

    alpha: float = Field(default=120, gt=0)
    sigma: float = Field(default=6, gt=0)


class GridConfig(Chance):
    """A grid of ``steps`` cells a side whose lines move by up to ``limit`` of a cell."""

    steps: int = Field(default=5, ge=1, le=100)
    limit: Limit = 0.3


class StrengthConfig(Chance):
    """A change of strength ``limit`` at most."""

    limit: float = Field(default=0.2, ge=0, le=5)


class BrightnessContrastConfig(Chance):
    """Brightness and contrast, as parts of the full range."""

    brightness: Limit = 0.2
    contrast: Limit = 0.2


class HsvConfig(Chance):
    """Hue (0 to 180), saturation and value (0 to 255), either way."""

    hue: float = Field(default=10, ge=0, le=180)
    saturation: float = Field(default=20, ge=0, le=255)
    value: float = Field(default=10, ge=0, le=255)


class GammaConfig(Chance):
    """Gamma in percent, from and to."""

    limit: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (80, 120)


class NoiseConfig(Chance):
    """Gaussian noise; standard deviation as part of the full range, from and to."""

    std: tuple[Limit, Limit] = (0.01, 0.04)


class BlurConfig(Chance):
    """Gaussian blur; width of the window in pixels, from and to."""

    px: tuple[Odd, Odd] = (3, 5)


class CompressionConfig(Chance):
    """JPEG of quality 1 to 100, from and to."""

    quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = (
        40,
        90,
    )


class DropoutConfig(Chance):
    """Holes in the image, not in the label; side as part of the patch, from and to."""

    holes: int = Field(default=8, ge=1, le=1000)
    side: tuple[Limit, Limit] = (0.05, 0.15)


class StainConfig(Chance):
    """Haematoxylin, eosin and DAB times 1 +- ``scale``, and +- ``offset`` of optical density."""

    scale: Limit = 0.2
    offset: Limit = 0.02


class OneOfConfig(Chance):
    """One of several changes; their own ``p`` are weights among each other."""

    of: tuple["StepConfig", ...] = Field(min_length=1)


class StepConfig(Section):
    """One change: exactly one of these keys.

    Geometry: ``hflip``, ``vflip``, ``rot90`` (one to three quarter turns), ``d4`` (any of the
    eight), ``affine``, ``perspective`` (limit: part of the side), ``elastic``, ``grid``,
    ``optical``. Colour: ``brightness_contrast``, ``hsv``, ``gamma``, ``clahe`` (limit: of
    contrast), ``stain``, ``channel_shuffle``. Slices
    seen as channels: ``slice_flip`` (their order). Quality: ``noise``, ``blur``, ``compression``,
    ``dropout``. And ``one_of``.
    """

    hflip: Chance | None = None
    vflip: Chance | None = None
    rot90: Chance | None = None
    d4: Chance | None = None
    affine: AffineConfig | None = None
    perspective: StrengthConfig | None = None
    elastic: ElasticConfig | None = None
    grid: GridConfig | None = None
    optical: StrengthConfig | None = None
    brightness_contrast: BrightnessContrastConfig | None = None
    hsv: HsvConfig | None = None
    gamma: GammaConfig | None = None
    clahe: StrengthConfig | None = None
    stain: StainConfig | None = None
    channel_shuffle: Chance | None = None
    slice_flip: Chance | None = None
    noise: NoiseConfig | None = None
    blur: BlurConfig | None = None
    compression: CompressionConfig | None = None
    dropout: DropoutConfig | None = None
    one_of: OneOfConfig | None = None

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
    """Mix the patches of a batch with each other, with probability ``p``.

    Parameters
    ----------
    kind
        ``cutmix`` puts a box of one patch into another, around foreground where there is any;
        ``mixup`` averages two patches and their labels.
    alpha
        Of the Beta distribution that the share of each is drawn from; 1 is uniform.
    """

    kind: Literal["cutmix", "mixup"] = "cutmix"
    alpha: float = Field(default=1.0, gt=0)


Preset = Literal["none", "d4", "light", "stain", "siim", "stas", "heavy"]
Augment = Preset | tuple[StepConfig, ...]
