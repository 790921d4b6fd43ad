"""Owns one stored multiscale image or label: its pyramid, attributes and reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from wsi_seg.classes import ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.limits import Limits, limits
from wsi_seg.reading.readable import Readable
from wsi_seg.reading.thumbnail import area_averaged, thumbnail_extent
from wsi_seg.store.arrays import LevelArray, read_document
from wsi_seg.store.chunks import read_region
from wsi_seg.store.group import attributes_of
from wsi_seg.store.info import LabelInfo, PredictionInfo, Quarantined
from wsi_seg.store.level import Index, LevelPixels
from wsi_seg.store.levels import listed, recorded
from wsi_seg.store.names import METADATA

if TYPE_CHECKING:
    import dask.array
    import zarr
    from zarr.core.metadata import ArrayV3Metadata


@dataclass(frozen=True, slots=True)
class Multiscale:
    """Multiscale image or label; picklable and thread-safe.

    Parameters
    ----------
    path
        Group folder.
    name
        Name of the slide or label.
    pyramid
        Extents of all levels; mpp of level 0 of this image.
    channels
        Number of channels, or None for a 2-D label.
    attributes
        Attributes that wsi_seg stored.
    arrays
        Arrays of the levels, finest first; see `levels.Levels`.

    Examples
    --------
    >>> image = open_collection("store.zarr")["slide-1"].image  # doctest: +SKIP
    >>> image.read(Region(level=1, y=0, x=0, height=256, width=256)).shape  # doctest: +SKIP
    (256, 256, 3)
    """

    path: Path
    name: str
    pyramid: Pyramid
    channels: int | None
    attributes: Mapping[str, object]
    arrays: Sequence[LevelArray]

    @property
    def classes(self) -> ClassTable:
        """Classes of the ids of a label, or of the channels of a prediction.

        Raises
        ------
        StoreError
            If no classes are stored.
        """
        if not self.names_classes:
            raise StoreError(f"{self.path} names no classes; expected one written by wsi-seg")
        return LabelInfo.from_json({"classes": self.attributes["classes"]}, self.path).classes

    @property
    def names_classes(self) -> bool:
        """Whether classes are stored, for class ids or channels."""
        return bool(self.attributes.get("classes"))

    @property
    def downsample(self) -> float:
        """Level-0 pixels of the slide per pixel of this image's level 0."""
        return _Scale.model_validate(self.attributes).downsample

    @property
    def slide_mpp(self) -> float | None:
        """Micrometres per pixel of the slide's level 0, or None if unknown."""
        return _Scale.model_validate(self.attributes).mpp

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Tiles of a prediction that could not be read: y, x and reason; pixels there are 0."""
        stored = {"quarantined": self.attributes.get("quarantined", ())}
        return PredictionInfo.from_json(stored, self.path).quarantined

    def parts(self) -> dict[str, Any]:
        """Return all fields by name, to construct an instance of a subclass."""
        return {one.name: getattr(self, one.name) for one in fields(Multiscale)}

    def read_levels(self) -> None:
        """Read the metadata of all levels now, so that levels rewritten later are detected.

        Raises
        ------
        StoreError
            If the metadata of a level are missing or damaged.
        """
        tuple(self.arrays)

    def chunk(self, level: int) -> Extent:
        """Return the chunk size of a level, which is decoded at a time."""
        self.pyramid.downsample(level)  # raises for a level that does not exist
        return self.arrays[level].chunk

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read a region of one level.

        Parameters
        ----------
        region
            Rectangle inside its level.
        cached
            Whether to cache decoded chunks.
        out
            Array to fill instead of a new one; see `destination`.

        Returns
        -------
        NDArray[np.uint8]
            ``(H, W, C)``, or ``(H, W)`` for a label; not shared with the cache.

        Raises
        ------
        RegionError
            If the level does not exist, or the region extends beyond it.
        StoreError
            If the store is damaged there, or ``out`` has another shape or dtype.
        """
        self.pyramid.downsample(region.level)  # raises for a level that does not exist
        require_inside(region, self.pyramid.extents[region.level], self.name)
        return read_region(self.arrays[region.level], region, cached=cached, out=out)

    def level(self, level: int) -> LevelPixels:
        """Return one level as a lazy array.

        Raises
        ------
        RegionError
            If the level does not exist.
        """
        self.pyramid.downsample(level)  # raises for a level that does not exist
        return LevelPixels(self, level, self.pyramid.extents[level])

    def __getitem__(self, key: Index | tuple[Index, ...]) -> NDArray[np.uint8]:
        """Read rows and columns of level 0; see `LevelPixels`.

        Examples
        --------
        >>> image[1000:1512, 2000:2512].shape  # doctest: +SKIP
        (512, 512, 3)
        """
        return self.level(0)[key]

    def to_dask(self, level: int = 0) -> "dask.array.Array":
        """Return one level as a lazy dask array, ``(H, W, C)`` or ``(H, W)`` uint8."""
        return self.level(level).to_dask()

    def to_zarr(self, level: int = 0) -> "zarr.Array[ArrayV3Metadata]":
        """Open one level with zarr-python, read-only, axes ``(c, y, x)`` or ``(y, x)``, uint8."""
        import zarr
        from zarr.storage import LocalStore

        self.pyramid.downsample(level)  # raises for a level that does not exist
        return zarr.open_array(LocalStore(self.arrays[level].path, read_only=True), mode="r")

    def thumbnail(self, longest_px: int = 1024) -> NDArray[np.uint8]:
        """Return the whole image, area-averaged to at most ``longest_px`` pixels per side.

        Returns
        -------
        NDArray[np.uint8]
            ``(H, W, 3)`` RGB.
        """
        size = thumbnail_extent(self.pyramid.extent, longest_px)
        return read_thumbnail(self, size)

    def __hash__(self) -> int:
        return hash((self.path, self.name))


def read_thumbnail(image: Readable, size: Extent) -> NDArray[np.uint8]:
    """Return the whole image downsampled to ``size``, ``(H, W, 3)``; see `area_averaged`."""
    # Not cached, because these pixels are rarely read again.
    return area_averaged(image.pyramid, partial(image.read, cached=False), size)


# Halving the largest level down to one pixel takes fewer levels.
_MOST_LEVELS = 64


class _Dataset(BaseModel):
    path: str = Field(pattern=r"^\w[\w.-]*$")  # a subfolder of the group


class _Scales(BaseModel):
    datasets: list[_Dataset] = Field(min_length=1, max_length=_MOST_LEVELS)
    name: str = ""


class _Ome(BaseModel):
    multiscales: list[_Scales] = Field(min_length=1)


class _Scale(BaseModel):
    mpp: float | None = Field(None, gt=0, allow_inf_nan=False)
    downsample: float = Field(1.0, gt=0, allow_inf_nan=False)


class _Ours(_Scale):
    # Stores of earlier versions have no shapes.
    shapes: list[Annotated[list[PositiveInt], Field(min_length=2, max_length=3)]] | None = None


class _Attributes(BaseModel):
    ome: _Ome
    wsi_seg: _Ours


def open_multiscale(path: Path) -> Multiscale:
    """Open a group created by `create_multiscale`.

    Raises
    ------
    StoreError
        If the group or one of its arrays is missing, damaged or not written by wsi_seg.
    """
    bound = limits()
    document, version = read_document(path / METADATA, bound)
    return multiscale_of(path, document, version, bound)


def multiscale_of(
    path: Path, document: Mapping[str, object], version: tuple[int, int], bound: Limits
) -> Multiscale:
    """Open a group from its parsed metadata; see `open_multiscale`."""
    stored = attributes_of(document, path)  # raises for other formats
    try:
        found = _Attributes.model_validate(document.get("attributes"))
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(
            f"{path / METADATA}: {'.'.join(map(str, first['loc']))}: {first['msg']}; expected an "
            "OME-Zarr group written by wsi_seg"
        ) from error
    scales, ours = found.ome.multiscales[0], found.wsi_seg
    names = [dataset.path for dataset in scales.datasets]
    if ours.shapes is None:
        levels = listed(path, names, version, bound)
    else:
        levels = recorded(path, names, ours.shapes, version, bound)
    return Multiscale(
        path=path,
        name=scales.name or path.name,
        pyramid=Pyramid(
            extents=levels.extents,
            mpp=None if ours.mpp is None else ours.mpp * ours.downsample,
        ),
        channels=levels.channels,
        attributes=stored,
        arrays=levels,
    )
