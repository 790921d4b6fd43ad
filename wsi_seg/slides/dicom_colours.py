"""Owns which colours of DICOM frames are read: every pair of a compression and an interpretation.

Some codecs turn luminance and chroma into RGB themselves, others give them as they are stored; the
table says for each pair who does it. Pairs that are not in it are refused.
"""

from typing import Literal

from wsi_seg.codestreams.headers import jpeg2k_transforms
from wsi_seg.codestreams.streams import jpeg_colours_unmarked

Family = Literal["plain", "rle", "jpeg", "lossless jpeg", "jpeg-ls", "jpeg 2000"]
By = Literal["nobody", "codec", "us", "codec or us"]

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
"""Compression of each transfer syntax that is read."""

_SAME: dict[str, By] = {"MONOCHROME1": "nobody", "MONOCHROME2": "nobody", "RGB": "nobody"}
_YBR: tuple[str, ...] = ("YBR_FULL", "YBR_FULL_422")

CONVERTED: dict[Family, dict[str, By]] = {
    "plain": _SAME | {"YBR_FULL": "us"},
    "rle": _SAME | {"YBR_FULL": "us"},
    # Where the stream is marked, its mark counts, whatever the header says.
    "jpeg": _SAME | dict.fromkeys(_YBR, "codec"),
    "lossless jpeg": _SAME | dict.fromkeys(_YBR, "us"),
    "jpeg-ls": _SAME | dict.fromkeys(_YBR, "us"),
    # The codec does it where the stream was made by its own transform.
    "jpeg 2000": _SAME
    | dict.fromkeys(_YBR, "codec or us")
    | {"YBR_ICT": "codec", "YBR_RCT": "codec"},
}
"""Who turns frames into RGB, by compression and photometric interpretation."""


def is_read(family: Family, colours: str, *, samples: int, stored: int) -> bool:
    """Whether frames of this kind are read.

    Parameters
    ----------
    family
        Compression.
    colours
        DICOM's photometric interpretation.
    samples
        Samples per pixel.
    stored
        Bits of a sample that count; chroma is read with 8.
    """
    by = CONVERTED[family].get(colours)
    grey = colours.startswith("MONOCHROME")
    if by is None or samples != (1 if grey else 3):
        return False
    return stored == 8 or not colours.startswith("YBR") or by == "codec"


def needs_conversion(family: Family, colours: str, stream: bytes) -> bool:
    """Whether what the codec gives is luminance and chroma still."""
    by = CONVERTED[family].get(colours)
    return by == "us" or (by == "codec or us" and not jpeg2k_transforms(stream))


def states_rgb(family: Family, colours: str, stream: bytes) -> bool:
    """Whether the header alone says that the components of JPEG are RGB, its stream nothing."""
    return family == "jpeg" and colours == "RGB" and jpeg_colours_unmarked(stream)
