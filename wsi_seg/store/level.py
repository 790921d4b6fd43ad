"""Owns the array interface of one level of an image: slicing, NumPy and dask."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import RegionError
from wsi_seg.geometry import Extent, Region

if TYPE_CHECKING:
    import dask.array

Index = int | slice


class _Image(Protocol):
    """The interface of images that a level uses."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> int | None: ...
    def chunk(self, level: int) -> Extent: ...
    def read(self, region: Region, *, cached: bool = True) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, slots=True)
class LevelPixels:
    """One level as a read-only array, ``(H, W, C)`` uint8, or ``(H, W)`` for a label.

    Pixels are read when the array is indexed, and only the chunks that contain them.

    Parameters
    ----------
    image
        The image.
    level
        Index of the level; 0 is the finest.
    extent
        Size of the level.

    Examples
    --------
    >>> pixels = image.level(0)  # doctest: +SKIP
    >>> pixels[1000:1512, 2000:2512].shape  # doctest: +SKIP
    (512, 512, 3)
    """

    image: _Image
    level: int
    extent: Extent

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, and channels if there are any."""
        channels = self.image.channels
        return (self.extent.height, self.extent.width, *(() if channels is None else (channels,)))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Index | tuple[Index, ...]) -> NDArray[np.uint8]:
        """Read rows, columns and channels with NumPy's basic indexing; steps must be 1.

        Raises
        ------
        RegionError
            If the index has anything but integers and slices of step 1, or selects no pixels.
        """
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim or not all(isinstance(one, int | slice) for one in keys):
            raise RegionError(
                f"got index {key!r} of {self.image.name}; expected up to {self.ndim} slices or "
                "integers, such as [0:512, 0:512]"
            )
        rows, columns = self._bounds(keys, 0), self._bounds(keys, 1)
        pixels = self.image.read(
            Region(
                level=self.level,
                y=rows.start,
                x=columns.start,
                height=len(rows),
                width=len(columns),
            )
        )
        first = [0 if isinstance(one, int) else slice(None) for one in keys[:2]]
        return pixels[(*first, *keys[2:])]

    def __array__(
        self, dtype: np.dtype[np.generic] | None = None, *, copy: bool | None = None
    ) -> NDArray[np.generic]:
        """Read the whole level."""
        return self[:, :].astype(dtype or self.dtype, copy=False)

    def to_dask(self) -> "dask.array.Array":
        """Return the level as a lazy dask array with the same chunks as the store."""
        from dask.array import from_array

        chunk = self.image.chunk(self.level)
        sizes = (chunk.height, chunk.width, *self.shape[2:])
        found: dask.array.Array = from_array(self, chunks=sizes, asarray=True, fancy=False)  # type: ignore[no-untyped-call]
        return found

    def _bounds(self, keys: tuple[Index, ...], axis: int) -> range:
        """Pixels that an index selects along an axis."""
        key = keys[axis] if axis < len(keys) else slice(None)
        if isinstance(key, int):
            key = slice(key, key + 1 or None)
        found = range(self.shape[axis])[key]
        if found.step != 1 or not len(found):
            raise RegionError(
                f"got index {key!r} on axis {axis} of {self.image.name}, which has "
                f"{self.shape[axis]} pixels there; expected at least one pixel, in steps of 1"
            )
        return found
