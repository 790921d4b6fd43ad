"""Owns the presets of augmentation: named lists of steps."""

from wsi_seg.config.augment import (
    AffineConfig,
    BlurConfig,
    BrightnessContrastConfig,
    Chance,
    ClaheConfig,
    CompressionConfig,
    DropoutConfig,
    ElasticConfig,
    GammaConfig,
    GridConfig,
    HsvConfig,
    NoiseConfig,
    OneOfConfig,
    Preset,
    StainConfig,
    StepConfig,
    StrengthConfig,
)

_D4 = StepConfig(d4=Chance(p=1))

_LIGHT = (
    _D4,
    StepConfig(brightness_contrast=BrightnessContrastConfig(brightness=0.15, contrast=0.15)),
    StepConfig(hsv=HsvConfig()),
    StepConfig(
        one_of=OneOfConfig(
            p=0.2, of=(StepConfig(blur=BlurConfig(p=1)), StepConfig(noise=NoiseConfig(p=1)))
        )
    ),
)

# About as strong as the differences between laboratories and scanners.
_STAIN = (
    _D4,
    StepConfig(affine=AffineConfig(p=0.7, rotate=45, scale=(0.6, 1.5), shift=0)),
    StepConfig(stain=StainConfig(p=0.5, scale=0.25, offset=0.03)),
    StepConfig(brightness_contrast=BrightnessContrastConfig(p=0.7, brightness=0.25, contrast=0.25)),
    StepConfig(hsv=HsvConfig(p=0.7, hue=15, saturation=40, value=15)),
    StepConfig(gamma=GammaConfig(p=0.3, limit=(70, 140))),
    StepConfig(
        one_of=OneOfConfig(
            p=0.3,
            of=(
                StepConfig(blur=BlurConfig(p=1)),
                StepConfig(noise=NoiseConfig(p=1, std=(0.01, 0.05))),
                StepConfig(compression=CompressionConfig(p=1)),
            ),
        )
    ),
)

# Augmentation of the SIIM-ACR 2019 pneumothorax winner, without the affine part of its elastic
# transform and the shift of its optical distortion, which albumentations no longer has.
_SIIM = (
    StepConfig(hflip=Chance(p=0.5)),
    StepConfig(
        one_of=OneOfConfig(
            p=0.3,
            of=(
                StepConfig(brightness_contrast=BrightnessContrastConfig(brightness=0)),
                StepConfig(gamma=GammaConfig(limit=(80, 120))),
                StepConfig(brightness_contrast=BrightnessContrastConfig(contrast=0)),
            ),
        )
    ),
    StepConfig(
        one_of=OneOfConfig(
            p=0.3,
            of=(
                StepConfig(elastic=ElasticConfig(alpha=120, sigma=6)),
                StepConfig(grid=GridConfig(steps=5, limit=0.3)),
                StepConfig(optical=StrengthConfig(limit=2)),
            ),
        )
    ),
    StepConfig(
        affine=AffineConfig(p=0.5, rotate=45, scale=(0.9, 1.1), shift=0.0625, keep_ratio=True)
    ),
)

_HEAVY = (
    _D4,
    StepConfig(affine=AffineConfig(p=0.7, rotate=45, scale=(0.8, 1.2))),
    StepConfig(
        one_of=OneOfConfig(
            p=0.5,
            of=(
                StepConfig(elastic=ElasticConfig()),
                StepConfig(grid=GridConfig()),
                StepConfig(optical=StrengthConfig(limit=0.5)),
                StepConfig(perspective=StrengthConfig(limit=0.1)),
            ),
        )
    ),
    StepConfig(hsv=HsvConfig(p=0.7, hue=20, saturation=40, value=20)),
    StepConfig(
        one_of=OneOfConfig(
            p=0.7,
            of=(
                StepConfig(gamma=GammaConfig(limit=(70, 140))),
                StepConfig(brightness_contrast=BrightnessContrastConfig()),
                StepConfig(clahe=ClaheConfig(limit=4)),
            ),
        )
    ),
    StepConfig(
        one_of=OneOfConfig(
            p=0.4, of=(StepConfig(noise=NoiseConfig(p=1)), StepConfig(blur=BlurConfig(p=1)))
        )
    ),
    StepConfig(channel_shuffle=Chance(p=0.1)),
    StepConfig(dropout=DropoutConfig(p=0.3)),
)

PRESETS: dict[Preset, tuple[StepConfig, ...]] = {
    "none": (),
    "d4": (_D4,),
    "light": _LIGHT,
    "stain": _STAIN,
    "siim": _SIIM,
    # All the augmentation of a team that was 4th on the public leaderboard of AI CUP 2022.
    "stas": (StepConfig(rot90=Chance(p=0.3)),),
    "heavy": _HEAVY,
}
