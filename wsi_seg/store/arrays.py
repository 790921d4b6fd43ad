"""Owns one level's array as stored on disk: sizes, chunk and shard grids, and file names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from wsi_seg.errors import StoreError, StoreIncompleteError
from wsi_seg.files.json_text import parse_json
from wsi_seg.files.shared import read_version
from wsi_seg.geometry import Extent
from wsi_seg.limits import Limits, advice, limits
from wsi_seg.store.codecs import Encoding


@dataclass(frozen=True, slots=True)
class LevelArray:
    """One sharded zarr v3 array, ``(c, y, x)`` or ``(y, x)`` uint8.

    Parameters
    ----------
    path
        Folder of the array.
    extent
        Size of the level.
    channels
        Number of channels, or None for a 2-D label.
    chunk
        Size of a chunk in pixels; all channels are in one chunk.
    shard
        Size of a shard in pixels, a multiple of the chunk's.
    encoding
        Codecs of the chunks.
    fill
        Pixel value of missing chunks, 0 to 255.
    version
        Changes when the array is rewritten, which invalidates cached chunks.
    """

    path: Path
    extent: Extent
    channels: int | None
    chunk: Extent
    shard: Extent
    encoding: Encoding
    fill: int = 0
    version: tuple[int, int] = (0, 0)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of chunks in a shard."""
        return self.shard.height // self.chunk.height, self.shard.width // self.chunk.width

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a decoded chunk, ``(H, W, C)`` or ``(H, W)``."""
        size = (self.chunk.height, self.chunk.width)
        return size if self.channels is None else (*size, self.channels)

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of a region of this size, ``(H, W, C)`` or ``(H, W)``."""
        return (height, width) if self.channels is None else (height, width, self.channels)

    @property
    def shape_stored(self) -> tuple[int, ...]:
        """Shape of the zarr array, ``(c, y, x)`` or ``(y, x)``."""
        size = (self.extent.height, self.extent.width)
        return size if self.channels is None else (self.channels, *size)

    def shard_path(self, row: int, column: int) -> Path:
        """Return the file of the shard at this row and column of the shard grid."""
        middle = "" if self.channels is None else "0/"
        return self.path / f"c/{middle}{row}/{column}"


class _Codec(BaseModel):
    name: str
    configuration: dict[str, object] = Field(default_factory=dict)


class _Chunks(BaseModel):
    chunk_shape: list[int] = Field(min_length=2, max_length=3)


class _Grid(BaseModel):
    configuration: _Chunks


class _Shard(_Chunks):
    codecs: list[_Codec]
    index_location: Literal["end"] = "end"


class _Sharding(BaseModel):
    name: Literal["sharding_indexed"]
    configuration: _Shard


class _Metadata(BaseModel):
    """Fields of an array's ``zarr.json`` that are needed for reading."""

    node_type: Literal["array"]
    data_type: Literal["uint8"]
    shape: list[int] = Field(min_length=2, max_length=3)
    chunk_grid: _Grid
    fill_value: int = Field(default=0, ge=0, le=255)
    codecs: list[_Sharding] = Field(min_length=1, max_length=1)


def read_level_array(path: Path, bound: Limits | None = None) -> LevelArray:
    """Read the metadata of an array.

    Parameters
    ----------
    path
        Folder of the array.
    bound
        Limits to apply; None for the current ones.

    Raises
    ------
    StoreIncompleteError
        If the folder has no metadata.
    StoreError
        If the metadata do not describe an array as written by wsi_seg.
    """
    file, bound = path / "zarr.json", bound or limits()
    document, version = read_document(file, bound)
    try:
        metadata = _Metadata.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(
            f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}; expected a sharded "
            "array of uint8 as wsi_seg writes it; tile the slide again"
        ) from error
    sharding = metadata.codecs[0].configuration
    _require_sizes(file, metadata, bound)
    return LevelArray(
        path=path,
        extent=Extent.of(metadata.shape[-2:]),
        channels=None if len(metadata.shape) == 2 else metadata.shape[0],
        chunk=Extent.of(sharding.chunk_shape[-2:]),
        shard=Extent.of(metadata.chunk_grid.configuration.chunk_shape[-2:]),
        encoding=Encoding.from_zarr([vars(codec) for codec in sharding.codecs]),
        fill=metadata.fill_value,
        version=version,
    )


def require_level_pixels(file: Path, pixels: int, bound: Limits) -> None:
    """Raise an error if a level declares more pixels than `wsi_seg.limits` allow."""
    _require_most(file, "level_pixels", pixels, bound)


def _require_most(file: Path, name: str, size: int, bound: Limits) -> None:
    if size > getattr(bound, name):
        raise StoreError(f"{file}: claims {size:,} {name.replace('_', ' ')}; {advice(name)}")


def _require_sizes(file: Path, metadata: _Metadata, bound: Limits) -> None:
    """Check the declared sizes, which must be consistent and within `wsi_seg.limits`."""
    shape, channels = metadata.shape[-2:], math.prod(metadata.shape[:-2])
    shard = metadata.chunk_grid.configuration.chunk_shape
    chunk = metadata.codecs[0].configuration.chunk_shape
    positive = all(size > 0 for sizes in (metadata.shape, shard, chunk) for size in sizes)
    fitting = positive and all(a % b == 0 for a, b in zip(shard[-2:], chunk[-2:], strict=True))
    if not fitting or len({len(metadata.shape), len(shard), len(chunk)}) > 1:
        raise StoreError(
            f"{file}: got shape {metadata.shape}, shards {shard}, chunks {chunk}; expected sizes "
            "above 0, and shards of whole chunks; tile the slide again"
        )
    chunks = [math.prod(-(-a // b) for a, b in zip(sizes, chunk[-2:], strict=True))
              for sizes in (shape, shard[-2:])]  # fmt: skip
    require_level_pixels(file, math.prod(shape), bound)
    _require_most(file, "chunk_bytes", channels * math.prod(chunk[-2:]), bound)
    _require_most(file, "tiles", max(chunks), bound)


def read_json(file: Path, bound: Limits | None = None) -> Mapping[str, object]:
    """Read a ``zarr.json``.

    Parameters
    ----------
    file
        Local file or address.
    bound
        Limits to apply; None for the current ones.

    Raises
    ------
    StoreIncompleteError
        If the file does not exist.
    StoreError
        If the file cannot be read or is not a JSON object.
    """
    return read_document(file, bound or limits())[0]


def read_document(file: Path, bound: Limits) -> tuple[Mapping[str, object], tuple[int, int]]:
    """Read a ``zarr.json`` as `read_json` does; also return a version, which changes with it."""
    try:
        content, version = read_version(file)
    except FileNotFoundError as error:
        raise StoreIncompleteError(
            f"{file.parent} has no {file.name}: writing it never finished; run `wsi-seg tile` again"
        ) from error
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}") from error
    if len(content) > bound.metadata_bytes:
        raise StoreError(f"{file} has {len(content)} bytes; {advice('metadata_bytes')}")
    try:
        value = parse_json(content, bound)
    except ValueError as error:
        raise StoreError(f"{file} is not JSON ({error}); tile the slide again") from error
    if not isinstance(value, dict):
        raise StoreError(f"{file}: got {type(value).__name__}; expected a JSON object")
    return value, version
