"""Owns writing a label map as a PNG with a palette, row by row: no library streams them."""

import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from wsi_seg.atomic import atomic_path
from wsi_seg.classes import IGNORE
from wsi_seg.store import Multiscale

_STRIP_PX = 512


def write_mask(path: Path, label: Multiscale) -> None:
    """Write class ids as an 8-bit PNG whose palette shows the classes' colours.

    Memory depends on the width only; the file is written whole or not at all.
    """
    extent = label.pyramid.extent
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[IGNORE] = 128
    for entry in label.classes:
        palette[entry.id] = entry.rgb
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        # 8 bits a pixel, a palette, no interlacing.
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", extent.width, extent.height, 8, 3, 0, 0, 0))
        _chunk(file, b"PLTE", palette.tobytes())
        packer = zlib.compressobj(6)
        for strip in extent.strips(_STRIP_PX):
            # Each row begins with its filter: 0, none.
            rows = np.pad(label.read(strip, cached=False), ((0, 0), (1, 0)))
            _chunk(file, b"IDAT", packer.compress(rows.tobytes()))
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    checksum = zlib.crc32(kind + data)
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))
