"""Owns the levels of an image; their arrays are opened lazily.

A group records the shapes of its levels, so that a slide is opened by reading one file. When the
metadata of a level are read, their shape is compared with the recorded one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent
from wsi_seg.limits import Limits
from wsi_seg.store.arrays import LevelArray, read_level_array, require_level_pixels
from wsi_seg.store.names import METADATA

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Levels(Sequence[LevelArray]):
    """Arrays of an image, finest first; metadata of each are read at first access.

    Parameters
    ----------
    group
        Folder of the image.
    names
        Names of the folders of the arrays in it.
    shapes
        Shapes of the arrays, ``(c, y, x)`` or ``(y, x)``.
    version
        Changes when the metadata of the group are rewritten.

    Examples
    --------
    >>> open_collection("store.zarr")["a"].image.arrays[0].chunk  # doctest: +SKIP
    Extent(height=512, width=512)
    """

    group: Path
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    version: tuple[int, int]
    _read: dict[int, LevelArray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Size of each level."""
        return tuple(Extent.of(shape[-2:]) for shape in self.shapes)

    @property
    def channels(self) -> int | None:
        """Number of channels, or None for a 2-D label."""
        return None if len(self.shapes[0]) == 2 else self.shapes[0][0]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, level: int) -> LevelArray: ...
    @overload
    def __getitem__(self, level: slice) -> Sequence[LevelArray]: ...
    def __getitem__(self, level: int | slice) -> LevelArray | Sequence[LevelArray]:
        """Return the array of a level, or the arrays of a slice of levels.

        Raises
        ------
        StoreError
            If its metadata are missing or damaged, or its shape differs from the recorded one.
        """
        if isinstance(level, slice):
            return [self[number] for number in range(len(self))[level]]
        number = range(len(self))[level]
        if number not in self._read:
            self._read[number] = self._checked(number)
        return self._read[number]

    def __iter__(self) -> Iterator[LevelArray]:
        return (self[number] for number in range(len(self)))

    def _checked(self, number: int) -> LevelArray:
        array = read_level_array(self.group / self.names[number])
        if (found := array.shape_stored) != self.shapes[number]:
            raise StoreError(
                f"{array.path / METADATA}: got shape {list(found)}; expected "
                f"{list(self.shapes[number])}, as {self.group / METADATA} records; tile the slide "
                "again"
            )
        return array


def recorded(
    group: Path,
    names: Sequence[str],
    shapes: Sequence[Sequence[int]],
    version: tuple[int, int],
    bound: Limits,
) -> Levels:
    """Return the levels of a group that records their shapes.

    Raises
    ------
    StoreError
        If the shapes do not match the levels, or exceed the limits.
    """
    if len(shapes) != len(names) or len({tuple(shape[:-2]) for shape in shapes}) != 1:
        raise StoreError(
            f"{group / METADATA}: got shapes {shapes}; expected one for each of {len(names)} "
            "levels, all with the same channels; tile the slide again"
        )
    require_level_pixels(group / METADATA, max(math.prod(one[-2:]) for one in shapes), bound)
    return Levels(group, tuple(names), tuple(map(tuple, shapes)), version)


def listed(group: Path, names: Sequence[str], version: tuple[int, int], bound: Limits) -> Levels:
    """Return the levels of a group written before shapes were recorded, reading all metadata.

    Raises
    ------
    StoreError
        If the metadata of a level are missing, damaged or not written by wsi_seg.
    """
    arrays = dict(enumerate(read_level_array(group / name, bound) for name in names))
    shapes = tuple(array.shape_stored for array in arrays.values())
    return Levels(group, tuple(names), shapes, version, arrays)
