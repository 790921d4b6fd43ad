"""Owns the names of exported files."""

import os
import zlib

from wsi_seg.files.half_written import LONGEST_NAME


def file_name(slide: str, suffix: str) -> str:
    """Return the slide name with a suffix, truncated and hashed if file systems would refuse it.

    Examples
    --------
    >>> file_name("a", ".png"), len(file_name("a" * 255, ".png"))
    ('a.png', 255)
    """
    whole = slide + suffix
    if len(os.fsencode(whole)) <= LONGEST_NAME:
        return whole
    end = f"~{zlib.crc32(os.fsencode(slide)):08x}{suffix}"
    cut = os.fsencode(slide)[: LONGEST_NAME - len(os.fsencode(end))]
    return cut.decode(errors="ignore") + end
