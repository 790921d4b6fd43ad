"""Owns the codecs of a store's chunks: encoding, decoding, and their zarr metadata."""

import base64
import io
import math
from collections.abc import Buffer, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_seg.codestreams.streams import require_sound
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent

Kind = Literal["zstd", "raw", "lzw", "deflate", "jpeg", "jpeg2k", "webp", "jpegxl"]
Pixels = NDArray[np.uint8]
Named = Mapping[str, object]

# Level 1 keeps up with disks; higher levels save only about 5 % on tissue.
_ZSTD_LEVEL = 1
# Effort 3 is 2.5 times as fast as the default of 7, for about 10 % more bytes.
_JPEGXL_EFFORT = 3
_FLAT_ABOVE = 95

_IMAGES: dict[str, Kind] = {
    "imagecodecs_jpeg": "jpeg",
    "imagecodecs_jpeg2k": "jpeg2k",
    "imagecodecs_webp": "webp",
    "imagecodecs_jpegxl": "jpegxl",
}
_COMPRESSORS: dict[str, Kind] = {
    "zstd": "zstd",
    "imagecodecs_zstd": "zstd",
    "imagecodecs_lzw": "lzw",
    "imagecodecs_zlib": "deflate",
}
_UNPACK: dict[str, Callable[..., Buffer]] = {
    "zstd": imagecodecs.zstd_decode,
    "lzw": imagecodecs.lzw_decode,
    "deflate": imagecodecs.zlib_decode,
}
_DECODE_IMAGE: dict[str, Callable[[bytes], Pixels]] = {
    "jpeg2k": imagecodecs.jpeg2k_decode,
    "webp": imagecodecs.webp_decode,
    "jpegxl": imagecodecs.jpegxl_decode,
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the chunks of one array are encoded.

    Parameters
    ----------
    kind
        wsi_seg encodes ``zstd``, ``jpeg`` and ``jpegxl``; other kinds, and ``jpeg`` and
        ``jpegxl`` without ``loss``, are streams copied from a slide.
    predictor
        Whether pixels are stored as differences from their left neighbours (TIFF predictor 2).
    tables
        JPEG tables shared by all streams, as an abbreviated JPEG stream; empty if there are none.
    jpeg_rgb
        Whether the components of JPEG without a JFIF marker are RGB, not YCbCr.
    loss
        JPEG quality, 1 to 100, or JPEG XL distance, 0 (lossless) to 15; None for zstd and for
        copied streams.
    """

    kind: Kind = "zstd"
    predictor: bool = False
    tables: bytes = b""
    jpeg_rgb: bool = False
    loss: float | None = None

    @property
    def exact(self) -> bool:
        """Whether `encode` is lossless."""
        return self.kind == "zstd" or (self.kind == "jpegxl" and self.loss == 0)

    def decode(self, data: bytes, shape: tuple[int, ...]) -> Pixels:
        """Decode one chunk.

        Parameters
        ----------
        data
            Encoded chunk.
        shape
            Expected shape of the chunk, ``(H, W, C)`` or ``(H, W)``.

        Returns
        -------
        NDArray[np.uint8]
            Pixels of that shape; can be read-only.

        Raises
        ------
        StoreError
            If the stream is damaged, or has another number of pixels.
        """
        try:
            pixels = self._decode(data, shape)
            # zarr's codec pipeline reshapes too, so both accept the same streams.
            pixels = pixels.reshape(shape)
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            raise StoreError(f"its {self.kind} stream cannot be decoded: {error}") from error
        if self.predictor:
            pixels = np.asarray(imagecodecs.delta_decode(pixels, axis=1))
        return pixels

    def encode(self, pixels: Pixels) -> bytes:
        """Encode one chunk, ``(H, W, C)`` or ``(H, W)`` uint8.

        Raises
        ------
        StoreError
            If the encoding is only for copied streams.
        """
        pixels = np.ascontiguousarray(pixels)
        if self.kind == "zstd" and not self.predictor:
            return bytes(imagecodecs.zstd_encode(pixels, level=_ZSTD_LEVEL))
        if self.kind == "jpeg" and self.loss is not None:
            return _encode_jpeg(pixels, round(self.loss))
        if self.kind == "jpegxl" and self.loss is not None:
            return bytes(
                imagecodecs.jpegxl_encode(
                    pixels,
                    lossless=self.loss == 0,
                    distance=self.loss or None,
                    effort=_JPEGXL_EFFORT,
                    numthreads=1,
                )
            )
        raise StoreError(f"got encoding {self.kind!r} of copied streams; expected one we write")

    def _decode(self, data: bytes, shape: tuple[int, ...]) -> Pixels:
        """Decode without allocating more than one chunk of pixels."""
        if self.kind == "raw":
            return np.frombuffer(data, dtype=np.uint8)
        if self.kind == "zstd" or self.kind == "lzw" or self.kind == "deflate":
            unpacked = _UNPACK[self.kind](data, out=math.prod(shape))
            return np.frombuffer(unpacked, dtype=np.uint8)
        require_sound(data, self.kind, Extent.of(shape))
        if self.kind == "jpeg":
            jpeg: Pixels = imagecodecs.jpeg8_decode(
                data,
                tables=self.tables or None,
                colorspace="RGB" if self.jpeg_rgb else None,
                outcolorspace="RGB",
            )
            return jpeg
        return _DECODE_IMAGE[self.kind](data)

    def to_zarr(self, *, channels: bool) -> "ZarrCodecs":
        """Return the zarr v3 codecs of this encoding for an array ``(c, y, x)`` or ``(y, x)``."""
        filters: list[dict[str, object]] = []
        if channels:
            filters.append({"name": "transpose", "configuration": {"order": [1, 2, 0]}})
        if self.predictor:
            filters.append({"name": "imagecodecs_delta", "configuration": {"axis": 1, "dist": 1}})
        plain: dict[str, object] = {"name": "bytes"}
        if self.kind == "raw" or self.kind in _UNPACK:
            return ZarrCodecs(
                filters, plain, [_compressor(self.kind)] if self.kind != "raw" else []
            )
        name = next(name for name, kind in _IMAGES.items() if kind == self.kind)
        return ZarrCodecs(filters, {"name": name, "configuration": self._image_options()}, [])

    def _image_options(self) -> dict[str, object]:
        if self.kind == "jpegxl" and self.loss is not None:
            return {"lossless": True} if self.loss == 0 else {"distance": self.loss}
        if self.kind != "jpeg":
            return {}
        options: dict[str, object] = {"colorspace_data": "RGB"}
        if self.loss is not None:
            options["level"] = round(self.loss)
        if self.jpeg_rgb:
            options["colorspace_jpeg"] = "RGB"
        if self.tables:
            options["tables"] = base64.b64encode(self.tables).decode()
        return options

    @classmethod
    def from_zarr(cls, codecs: Sequence[Named]) -> "Encoding":
        """Parse the inner codecs of a shard from zarr metadata.

        Raises
        ------
        StoreError
            If a codec is not one that `to_zarr` uses.
        """
        kind: Kind = "raw"
        predictor, tables, jpeg_rgb, loss = False, b"", False, None
        for codec in codecs:
            name = str(codec.get("name"))
            options = codec.get("configuration") or {}
            if not isinstance(options, Mapping):
                raise StoreError(f"got codec {codec!r}; expected its configuration as a mapping")
            if name == "imagecodecs_delta":
                predictor = True
            elif name in _IMAGES:
                kind = _IMAGES[name]
                tables = _tables(options)
                jpeg_rgb = options.get("colorspace_jpeg") == "RGB"
                loss = _loss(options)
            elif name in _COMPRESSORS:
                kind = _COMPRESSORS[name]
            elif name not in {"transpose", "bytes"}:
                raise StoreError(f"got zarr codec {name!r}; expected one that wsi_seg writes")
        return cls(kind, predictor, tables, jpeg_rgb, loss)


def _encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Encode JPEG without chroma subsampling, which would blur the borders of stains.

    Above `_FLAT_ABOVE`, quantization is uniform, in steps of 100 - quality: at equal size, the mean
    error is a quarter less than with the standard tables, which are tuned for human vision.
    """
    if quality <= _FLAT_ABOVE:
        return bytes(
            imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="444", optimize=True)
        )
    from PIL import Image  # imagecodecs does not support custom tables

    file, table = io.BytesIO(), [max(1, 100 - quality)] * 64
    Image.fromarray(pixels).save(file, "JPEG", qtables=[table, table], subsampling=0, optimize=True)
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class ZarrCodecs:
    """Inner codecs of a sharded array, in the form that ``zarr.create_array`` takes."""

    filters: list[dict[str, object]]
    serializer: dict[str, object]
    compressors: list[dict[str, object]]


def _tables(options: Named) -> bytes:
    try:
        return base64.b64decode(str(options.get("tables", "")), validate=True)
    except ValueError as error:
        raise StoreError(f"got JPEG tables that are not base64 ({error})") from error


def _loss(options: Named) -> float | None:
    """Quality or distance in the options of an image codec; None if there is neither."""
    if options.get("lossless") is True:
        return 0.0
    stated = options.get("level", options.get("distance"))
    return float(stated) if isinstance(stated, int | float) else None


def _compressor(kind: Kind) -> dict[str, object]:
    if kind == "zstd":
        return {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}
    name = next(name for name, known in _COMPRESSORS.items() if known == kind)
    return {"name": name}
