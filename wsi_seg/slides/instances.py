"""Owns reading one DICOM file with pydicom: its header, frame offsets and decoding."""

import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.hooks import hooks, raw_element_value

from wsi_seg.codestreams.headers import require_size
from wsi_seg.codestreams.items import unwrapped
from wsi_seg.codestreams.streams import require_sound
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits
from wsi_seg.slides.colour import ycbcr_to_rgb
from wsi_seg.slides.dicom_colours import (
    FAMILIES,
    Family,
    is_supported,
    needs_conversion,
    states_rgb,
)
from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.tiles import pread

# pydicom would log each invalid value, patient names included; pixels do not depend on them.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def _with_points(
    raw: Any,  # noqa: ANN401 (pydicom's type)
    data: dict[str, Any],
    **more: Any,  # noqa: ANN401
) -> None:
    """Accept decimal commas in decimal strings (VR DS), which the standard forbids."""
    if data["VR"] == "DS" and raw.value and b"," in raw.value:
        raw = raw._replace(value=raw.value.replace(b",", b"."))
    raw_element_value(raw, data, **more)


hooks.register_callback("raw_element_value", _with_points)

_UNDEFINED = 0xFFFFFFFF
_DEFLATED = "1.2.840.10008.1.2.1.99"
_DECODERS: dict[Family, Callable[[bytes], Any]] = {
    "lossless jpeg": imagecodecs.jpegsof3_decode,
    "jpeg-ls": imagecodecs.jpegls_decode,
    "jpeg 2000": imagecodecs.jpeg2k_decode,
}


@dataclass(frozen=True, slots=True)
class Samples:
    """How the samples of a frame are stored.

    Parameters
    ----------
    per_pixel
        1 for grey, 3 for colour.
    allocated, stored, high_bit
        Bits allocated per sample, bits used, and index of the highest used bit.
    signed
        Whether samples are signed (two's complement).
    planar
        Whether colour planes are stored one after another.
    colours
        DICOM's photometric interpretation.
    """

    per_pixel: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    planar: bool
    colours: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian dtype of a sample."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def full_range(self) -> tuple[int, int]:
        """Smallest and largest value of a sample."""
        span = 1 << self.stored
        return (-span // 2, span // 2 - 1) if self.signed else (0, span - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One DICOM file and the offsets of its frames.

    Parameters
    ----------
    path
        The file.
    header
        The pydicom dataset, without pixels.
    syntax
        Transfer syntax UID: byte order and compression.
    frame
        Size of a frame.
    samples
        Storage of its samples.
    starts, ends
        Byte offsets in the file where each frame starts and ends, ``(frames,)``.
    """

    path: Path
    header: Any
    syntax: str
    frame: Extent
    samples: Samples
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def decode(self, number: int) -> NDArray[np.generic]:
        """Decode one frame to its stored samples, ``(H, W, S)``; colours are converted to RGB.

        Raises
        ------
        SlideError
            If it is damaged, or its size differs from the header.
        """
        stream = self.stream(number)
        with self._damage(number):
            pixels = self._decode(stream)
            expected = (self.frame.height, self.frame.width, self.samples.per_pixel)
            if pixels.shape != expected:
                raise SlideError(
                    f"{self.path}: frame {number} decodes to {pixels.shape}; expected {expected}; "
                    "the file is damaged"
                )
            return pixels

    def stream(self, number: int) -> bytes:
        """Read one encoded frame, without the DICOM items around it.

        Raises
        ------
        SlideError
            If it is truncated.
        """
        start = int(self.starts[number])
        with self._damage(number):
            data = pread(self.path, start, int(self.ends[number]) - start)
            return data if FAMILIES[self.syntax] == "plain" else unwrapped(data)

    def _damage(self, number: int) -> AbstractContextManager[None]:
        return translate_errors(self.path, f"frame {number} is damaged: ", "a whole DICOM file")

    def _decode(self, stream: bytes) -> NDArray[np.generic]:
        family, samples = FAMILIES[self.syntax], self.samples
        pixels = self._run_codec(stream, family)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if pixels.itemsize == samples.dtype.itemsize:
            pixels = pixels.view(samples.dtype)
        if needs_conversion(family, samples.colours, stream):
            return ycbcr_to_rgb(pixels.astype(np.uint8, copy=False))
        return pixels

    def _run_codec(self, stream: bytes, family: Family) -> NDArray[np.generic]:
        """Decode a stream, without converting its colours."""
        samples, shape = self.samples, (self.frame.height, self.frame.width)
        if family == "plain":
            little = pydicom.uid.UID(self.syntax).is_little_endian
            flat = np.frombuffer(stream, samples.dtype.newbyteorder("<" if little else ">"))
            return self._unpack_samples(flat)
        if family == "rle":
            dtype = samples.dtype.newbyteorder("<")
            flat = np.frombuffer(imagecodecs.dicomrle_decode(stream, dtype), dtype)
            return _interleaved(flat, shape, samples.per_pixel, planar=True)
        if family == "jpeg":
            require_sound(stream, "jpeg", self.frame)
            rgb = "RGB" if states_rgb(family, samples.colours, stream) else None
            return np.asarray(imagecodecs.jpeg8_decode(stream, colorspace=rgb, outcolorspace=rgb))
        require_size(stream, "jpeg2k" if family == "jpeg 2000" else "jpeg", self.frame)
        return np.asarray(_DECODERS[family](stream))

    def _unpack_samples(self, flat: NDArray[np.generic]) -> NDArray[np.generic]:
        """Reshape uncompressed samples and drop their unused bits."""
        samples = self.samples
        count = self.frame.area * samples.per_pixel
        shape = (self.frame.height, self.frame.width)
        pixels = _interleaved(flat[:count], shape, samples.per_pixel, planar=samples.planar)
        unused = samples.allocated - 1 - samples.high_bit
        if samples.stored == samples.allocated:
            return pixels
        shifted = np.left_shift(pixels.astype(samples.dtype), unused)
        unpacked: NDArray[np.generic] = np.right_shift(shifted, samples.allocated - samples.stored)
        return unpacked


def read_header(path: Path, tags: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 (pydicom's type)
    """Read a file's dataset without pixels; if ``tags`` are given, only those.

    Raises
    ------
    SlideError
        If the file is not DICOM or is damaged.
    """
    with translate_dicom_errors(path):
        _reject_deflated(path)
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags) or None)


def read_instance(path: Path) -> Instance:
    """Read a file's header and locate its frames.

    Raises
    ------
    SlideError
        If the file is not DICOM, holds no picture, or is damaged.
    UnsupportedSlideError
        If the encoding of its frames is not supported.
    """
    with translate_dicom_errors(path), path.open("rb") as file:
        _reject_deflated(path)
        header = pydicom.dcmread(file, stop_before_pixels=True)
        syntax = str(header.file_meta.TransferSyntaxUID)
        samples = _samples(header, syntax, path)
        if not header.get("Rows") or not header.get("Columns"):
            raise SlideError(f"{path}: is DICOM without a picture")
        frame = Extent(height=int(header.Rows), width=int(header.Columns))
        frames = int(header.get("NumberOfFrames") or 1)
        nbytes = frame.area * samples.per_pixel * samples.allocated // 8
        _require_sizes(path, frame, frames=frames, nbytes=nbytes)
        starts, ends = _frame_offsets(file, header, syntax, frames=frames, nbytes=nbytes)
        total = path.stat().st_size
        if len(starts) < frames or (ends > total).any() or (starts < 0).any():
            raise SlideError(
                f"{path}: ends before the last of {frames} frames; it is truncated; copy it again"
            )
    return Instance(path, header, syntax, frame, samples, starts, ends)


@contextmanager
def translate_dicom_errors(path: Path) -> Iterator[None]:
    """Translate pydicom's errors to SlideError, and silence its warnings about invalid values."""
    what, expected = "cannot be read as DICOM: ", "a whole DICOM file"
    with (
        warnings.catch_warnings(action="ignore"),
        translate_errors(path, what, expected, also=(InvalidDicomError, BytesLengthException)),
    ):
        yield


def _reject_deflated(path: Path) -> None:
    """Refuse a deflated dataset, which pydicom would inflate entirely before any size is known."""
    if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
        raise UnsupportedSlideError(
            f"{path}: got a deflated dataset (Deflated Explicit VR); expected one that is not "
            "deflated; convert it"
        )


def _require_sizes(path: Path, frame: Extent, *, frames: int, nbytes: int) -> None:
    """Check the sizes that a header declares against the limits; see `wsi_seg.limits`."""
    bound = limits()
    if frame.area > bound.tile_pixels:
        raise SlideError(f"{path}: got frames of {frame}; {advice('tile_pixels')}")
    if nbytes > bound.chunk_bytes:
        raise SlideError(f"{path}: got frames of {nbytes} bytes; {advice('chunk_bytes')}")
    if not 0 < frames <= bound.tiles:
        raise SlideError(f"{path}: got {frames} frames; {advice('tiles')}")


def _samples(header: Any, syntax: str, path: Path) -> Samples:  # noqa: ANN401 (pydicom's type)
    if syntax not in FAMILIES:
        raise UnsupportedSlideError(
            f"{path}: got {pydicom.uid.UID(syntax).name}; expected frames that are uncompressed, "
            "JPEG, JPEG 2000, JPEG-LS or RLE; convert it"
        )
    found = Samples(
        per_pixel=int(header.get("SamplesPerPixel", 1)),
        allocated=int(header.get("BitsAllocated", 0)),
        stored=int(header.get("BitsStored", 0)),
        high_bit=int(header.get("HighBit", int(header.get("BitsStored", 1)) - 1)),
        signed=bool(header.get("PixelRepresentation", 0)),
        planar=bool(header.get("PlanarConfiguration", 0)),
        colours=str(header.get("PhotometricInterpretation", "")),
    )
    bits = found.allocated in {8, 16} and 0 < found.stored <= found.allocated
    family = FAMILIES[syntax]
    if not bits or not is_supported(
        family, found.colours, samples=found.per_pixel, stored=found.stored
    ):
        raise UnsupportedSlideError(
            f"{path}: got {found.per_pixel} samples per pixel of {found.stored} bits, "
            f"{found.colours or 'no colours'}, {family}; expected grey, RGB or YBR_FULL of 2 to 16 "
            "bits; convert it"
        )
    return found


def _frame_offsets(
    file: BinaryIO,
    header: Any,  # noqa: ANN401 (pydicom's type)
    syntax: str,
    *,
    frames: int,
    nbytes: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the start and end offset of each frame; the file is positioned at PixelData."""
    length = _skip_pixel_header(file, syntax)
    if length != _UNDEFINED:
        starts = file.tell() + nbytes * np.arange(frames, dtype=np.int64)
        return starts, starts + nbytes
    offsets = np.array(parse_basic_offsets(file), dtype=np.int64)
    first = file.tell()
    extended = header.get("ExtendedOffsetTable")
    if extended is not None:
        starts = first + np.frombuffer(extended, "<u8").astype(np.int64)
    elif len(offsets) == frames:
        starts = first + offsets
    elif frames == 1:
        starts = np.array([first], dtype=np.int64)
    else:
        count, positions = parse_fragments(file)
        if count != frames:
            raise UnsupportedSlideError(
                f"{file.name}: got {count} fragments for {frames} frames and no offset table; "
                "expected one fragment per frame; export it with a basic offset table"
            )
        starts = np.array(positions, dtype=np.int64)
    starts = starts[:frames]
    end = file.seek(0, 2)
    return starts, np.append(starts[1:], end)


def _skip_pixel_header(file: BinaryIO, syntax: str) -> int:
    """Skip the header of the PixelData element; return the element's length in bytes."""
    uid = pydicom.uid.UID(syntax)
    order = "<" if uid.is_little_endian else ">"
    group, element = struct.unpack(f"{order}HH", file.read(4))
    if (group, element) != (0x7FE0, 0x0010):
        raise SlideError(f"{file.name}: is DICOM without a picture")
    if not uid.is_implicit_VR:
        file.read(4)
    return int(struct.unpack(f"{order}I", file.read(4))[0])


def _interleaved(
    flat: NDArray[np.generic], shape: tuple[int, int], samples: int, *, planar: bool
) -> NDArray[np.generic]:
    if planar:
        return np.moveaxis(flat.reshape(samples, *shape), 0, -1)
    return flat.reshape(*shape, samples)
