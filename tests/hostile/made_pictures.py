"""Owns PNG, JPEG and DICOM files that are broken in one named way each."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate

from tests.hostile.made_tiffs import BOMB_BYTES, deflate_bomb, jpeg_claiming
from tests.makers.dicoms import write_dicom_image, write_dicom_level

Damage = Callable[[bytes], bytes]
Change = Callable[[FileDataset], None]

_PIXELS = (np.arange(70 * 90 * 3) * 37 % 251).astype(np.uint8).reshape(70, 90, 3)
_DEFLATED = "1.2.840.10008.1.2.1.99"


def write_hostile_pictures(folder: Path) -> dict[str, Path]:
    """Write every broken PNG and JPEG; files by what is wrong with them."""
    written = {}
    for name, (suffix, damage) in _PICTURES.items():
        path = folder / f"{name}.{suffix}"
        Image.fromarray(_PIXELS).save(path)
        path.write_bytes(damage(path.read_bytes()))
        written[name] = path
    return written


def write_hostile_dicoms(folder: Path) -> dict[str, Path]:
    """Write every broken DICOM file; files by what is wrong with them."""
    written = {}
    for name, change in _DICOMS.items():
        path = _own_folder(folder, name)
        if name.startswith("plain"):
            write_dicom_image(path, _PIXELS[..., 0].astype(np.int16))
        else:
            write_dicom_level(path, _PIXELS, number=0, frames="jpeg")
        header = pydicom.dcmread(path)
        change(header)
        header.save_as(path, enforce_file_format=True)
        written[name] = path
    for name, damage in _DICOM_BYTES.items():
        path = _own_folder(folder, name)
        write_dicom_level(path, _PIXELS, number=0, frames="jpeg")
        path.write_bytes(damage(path.read_bytes()))
        written[name] = path
    return written


def _own_folder(folder: Path, name: str) -> Path:
    """Place a file apart: files of one series in one folder are one slide."""
    path = folder / name / f"{name}.dcm"
    path.parent.mkdir()
    return path


def _chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG with its right checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(height: int, width: int, *more: bytes, colour: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = b"".join(more) or _chunk(b"IDAT", deflate_bomb(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + body + _chunk(b"IEND", b"")


def _replaced(old: bytes, new: bytes) -> Damage:
    return lambda data: data.replace(old, new, 1)


_PICTURES: dict[str, tuple[str, Damage]] = {
    "png-claims-4-gigapixels": ("png", lambda data: _png(65_000, 65_000)),
    "png-claims-2-31": ("png", lambda data: _png(2**31 - 1, 2**31 - 1)),
    "png-of-0-px": ("png", lambda data: _png(0, 90)),
    "png-bomb": ("png", lambda data: _png(70, 90, _chunk(b"IDAT", deflate_bomb(BOMB_BYTES)))),
    "png-text-bomb": ("png", lambda data: _png(70, 90, _chunk(b"zTXt", b"a\0\0" + deflate_bomb(BOMB_BYTES)), data[33:-12])),
    "png-profile-bomb": ("png", lambda data: _png(70, 90, _chunk(b"iCCP", b"a\0\0" + deflate_bomb(BOMB_BYTES)), data[33:-12])),
    "png-without-palette": ("png", lambda data: _png(70, 90, colour=3)),
    "png-wrong-checksum": ("png", lambda data: data[:29] + b"\0\0\0\0" + data[33:]),
    "png-truncated": ("png", lambda data: data[: len(data) // 2]),
    "png-without-px": ("png", lambda data: data[:33]),
    "jpeg-claims-4-gigapixels": ("jpg", lambda data: jpeg_claiming(65_000, 65_000)),
    "jpeg-claims-more": ("jpg", lambda data: jpeg_claiming(9000, 9000)),
    "jpeg-truncated": ("jpg", lambda data: data[: len(data) // 2]),
    "jpeg-of-noise": ("jpg", lambda data: data[:300] + bytes(range(256)) * 9),
    "postscript": ("png", lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n"),
}  # fmt: skip


def _set(**values: int | str) -> Change:
    """Change the header by DICOM keywords."""

    def change(header: FileDataset) -> None:
        for keyword, value in values.items():
            setattr(header, keyword, value)

    return change


def _no_spacing(header: FileDataset) -> None:
    header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = []


def _claiming_jpeg(header: FileDataset) -> None:
    header.PixelData = encapsulate([jpeg_claiming(65_000, 65_000)] * 4)


_SQUARE = {"TotalPixelMatrixRows": 1 << 18, "TotalPixelMatrixColumns": 1 << 18}
_DICOMS: dict[str, Change] = {
    "frames-2-31": _set(NumberOfFrames=2**31 - 1),
    "frames-negative": _set(NumberOfFrames=-3),
    "level-of-2-31-px": _set(TotalPixelMatrixRows=2**31 - 1, TotalPixelMatrixColumns=2**31 - 1),
    "level-of-frames-of-1-px": _set(**_SQUARE, Rows=1, Columns=1),
    "level-of-0-px": _set(TotalPixelMatrixRows=0),
    "frames-of-65535-px": _set(Rows=65535, Columns=65535),
    "plain-65535-px": _set(Rows=65535, Columns=65535),
    "plain-slope-of-0": _set(RescaleSlope="0"),
    "spacing-of-nothing": _no_spacing,
    "frame-claims-more": _claiming_jpeg,
}

_DICOM_BYTES: dict[str, Damage] = {
    "truncated": lambda data: data[: len(data) // 2],
    "truncated-in-header": lambda data: data[:400],
    "no-meta": lambda data: data[:132] + bytes(5000),
    "deflated-bomb": lambda data: _deflated(data),
    "nested": lambda data: _nested(data),
    "length-2-32": lambda data: data[:-200] + b"\xff" * 200,
}


def _nested(data: bytes) -> bytes:
    """Put sequences into each other, as the first element of the data set."""
    place = data.index(b"\x08\x00\x08\x00CS")
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return data[:place] + sequence * 20_000 + data[place:]


def _deflated(data: bytes) -> bytes:
    """Say that the data set is deflated, and let it be a bomb."""
    place = data.index(b"1.2.840.10008.1.2.4.50")
    end = data.index(b"\x08\x00\x08\x00CS", place)
    head = data[:place] + _DEFLATED.encode() + data[place + len(_DEFLATED) : end]
    return head + deflate_bomb(BOMB_BYTES, raw=True)
