"""Owns streaming a label map to a PNG with a palette, which no library does row by row."""

import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from wsi_seg.classes import IGNORE
from wsi_seg.files.atomic import atomic_path
from wsi_seg.store import Multiscale

_STRIP_PX = 512


def write_mask(path: Path, label: Multiscale) -> None:
    """Write class ids ``(H, W)`` as an 8-bit PNG whose palette has the colours of the classes.

    The file is written atomically; memory depends on the width only.
    """
    extent = label.pyramid.extent
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[IGNORE] = 128
    for entry in label.classes:
        palette[entry.id] = entry.rgb
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        # 8 bits per pixel, a palette, no interlacing.
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", extent.width, extent.height, 8, 3, 0, 0, 0))
        _chunk(file, b"PLTE", palette.tobytes())
        packer = zlib.compressobj(6)
        for strip in extent.strips(_STRIP_PX):
            # Each row begins with a filter type; 0 means unfiltered.
            rows = np.pad(label.read(strip, cached=False), ((0, 0), (1, 0)))
            _chunk(file, b"IDAT", packer.compress(rows.tobytes()))
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    checksum = zlib.crc32(kind + data)
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))
