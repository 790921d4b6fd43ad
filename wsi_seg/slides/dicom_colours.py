"""Owns which colours of DICOM frames are supported, by compression and photometric interpretation.

Some codecs convert YCbCr to RGB themselves, others return the stored components; the table states
for each pair which of the two converts. Pairs that are not in the table are refused.
"""

from typing import Literal

from wsi_seg.codestreams.headers import jpeg2k_transforms
from wsi_seg.codestreams.streams import jpeg_colours_unmarked

Family = Literal["plain", "rle", "jpeg", "lossless jpeg", "jpeg-ls", "jpeg 2000"]
By = Literal["nobody", "codec", "reader", "codec or reader"]

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_SYNTAXES: dict[Family, tuple[str, ...]] = {
    "plain": _NATIVE,
    "rle": ("1.2.840.10008.1.2.5",),
    "jpeg": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51)),
    "lossless jpeg": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70)),
    "jpeg-ls": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)),
    "jpeg 2000": tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)),
}

FAMILIES: dict[str, Family] = {
    syntax: family for family, syntaxes in _SYNTAXES.items() for syntax in syntaxes
}
"""Compression of each supported transfer syntax."""

_SAME: dict[str, By] = {"MONOCHROME1": "nobody", "MONOCHROME2": "nobody", "RGB": "nobody"}
_YBR: tuple[str, ...] = ("YBR_FULL", "YBR_FULL_422")

CONVERTED: dict[Family, dict[str, By]] = {
    "plain": _SAME | {"YBR_FULL": "reader"},
    "rle": _SAME | {"YBR_FULL": "reader"},
    # Markers in the stream take precedence over the header.
    "jpeg": _SAME | dict.fromkeys(_YBR, "codec"),
    "lossless jpeg": _SAME | dict.fromkeys(_YBR, "reader"),
    "jpeg-ls": _SAME | dict.fromkeys(_YBR, "reader"),
    # The codec converts if the stream uses JPEG 2000's multiple component transform.
    "jpeg 2000": _SAME
    | dict.fromkeys(_YBR, "codec or reader")
    | {"YBR_ICT": "codec", "YBR_RCT": "codec"},
}
"""Which of codec and reader converts frames to RGB, by compression and interpretation."""


def is_supported(family: Family, colours: str, *, samples: int, stored: int) -> bool:
    """Return whether frames of this kind are supported.

    Parameters
    ----------
    family
        Compression.
    colours
        DICOM's photometric interpretation.
    samples
        Samples per pixel.
    stored
        Bits stored per sample; YCbCr must have 8.
    """
    by = CONVERTED[family].get(colours)
    grey = colours.startswith("MONOCHROME")
    if by is None or samples != (1 if grey else 3):
        return False
    return stored == 8 or not colours.startswith("YBR") or by == "codec"


def needs_conversion(family: Family, colours: str, stream: bytes) -> bool:
    """Return whether the codec's output is YCbCr."""
    by = CONVERTED[family].get(colours)
    return by == "reader" or (by == "codec or reader" and not jpeg2k_transforms(stream))


def states_rgb(family: Family, colours: str, stream: bytes) -> bool:
    """Return whether JPEG components are RGB by the header, with no marker in the stream."""
    return family == "jpeg" and colours == "RGB" and jpeg_colours_unmarked(stream)
