"""Owns reading OME-Zarr images (0.4 in Zarr v2, 0.5 in Zarr v3) as slides.

Axes are identified by their names in the metadata: y and x, optionally c, and t and z of length 1.
Pixels are uint8. One channel is grey, three are RGB, and the fourth of four is alpha: pixels where
it is 0 become white. Missing chunks have the array's fill value. From a bioformats2raw folder, the
image that the metadata identify as the slide is read, never a label or overview image; see
`wsi_seg.slides.omezarr_images`.
"""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.limits import advice, limits
from wsi_seg.slides.channels import require_named_colours
from wsi_seg.slides.colour import Colour
from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.omezarr_images import find_image
from wsi_seg.slides.resolution import (
    UNKNOWN,
    Resolution,
    choose_resolution,
    micrometres,
    parse_um,
    pixel_resolution,
)
from wsi_seg.slides.slide import NotCopyable, Slide, slide_name

_MOST_LEVELS = 64

# Bytes for one chunk in the index of a shard: its offset and size.
_INDEX_ENTRY = 16


class OmeZarrSlide(Slide):
    """An OME-Zarr image; see `wsi_seg.slides.Slide`.

    Parameters
    ----------
    path
        Folder of the Zarr group.
    mpp
        Micrometres per pixel of level 0; overrides the metadata.
    scene
        Number (from 1) or name of the image to read from a folder that holds several.

    Raises
    ------
    SlideError
        If the metadata are damaged.
    UnsupportedSlideError
        If the version, axes, channels or dtype are not supported, or if several images may be the
        slide.
    """

    def __init__(self, path: Path, *, mpp: float | None = None, scene: str | None = None) -> None:
        self.path = path
        self.name = slide_name(path)
        self._override, self._scene = mpp, scene
        with _translate_errors(path):
            image, self.scene = find_image(path, scene)
            group, version, scales = image.group, image.version, image.scales
            self._axes = [str(axis["name"]) for axis in scales["axes"]]
            if len(scales["datasets"]) > _MOST_LEVELS:
                raise SlideError(f"{path}: got {len(scales['datasets'])} levels; expected a few")
            self._arrays = [_open_level(group, entry["path"]) for entry in scales["datasets"]]
            for array in self._arrays:
                self._check(array, image.channels, image.colours)
            found = choose_resolution(mpp, _resolution(scales, self._axes), path)
            self.format = f"ome-zarr {version}"
            self.mpp_source = found.source
            extents = tuple(self._extent(array) for array in self._arrays)
            self.pyramid = Pyramid(extents, found.mpp)

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # raises for a level that does not exist
        require_inside(region, self.pyramid.extents[region.level], self.name)
        rows, columns = region.slices
        selection: dict[str, int | slice] = {"y": rows, "x": columns, "c": slice(None)}
        with _translate_errors(self.path):
            array = self._arrays[region.level]
            part = np.asarray(array[tuple(selection.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in selection]
        if "c" not in kept:
            part, kept = part[..., None], [*kept, "c"]
        pixels = part.transpose([kept.index(axis) for axis in ("y", "x", "c")])
        count = pixels.shape[2]
        colour = Colour("grey" if count == 1 else "rgb", 8, alpha=3 if count == 4 else None)
        return colour.to_rgb(pixels)

    def streams(self, level: int) -> NotCopyable:
        """Return no streams: the chunks may have other axes or codecs than those of a store."""
        return NotCopyable("chunks of another OME-Zarr")

    def native_block(self, level: int) -> Extent:
        """Return the size of a chunk."""
        chunk = dict(zip(self._axes, self._arrays[level].chunks, strict=True))
        return Extent(height=chunk["y"], width=chunk["x"])

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._override, self._scene)

    def _extent(self, array: Any) -> Extent:  # noqa: ANN401 (a zarr array)
        size = dict(zip(self._axes, array.shape, strict=True))
        return Extent(height=size["y"], width=size["x"])

    def _check(
        self,
        array: Any,  # noqa: ANN401 (a zarr array)
        channels: tuple[str, ...],
        colours: tuple[str, ...],
    ) -> None:
        size = dict(zip(self._axes, array.shape, strict=True))
        others = {axis: n for axis, n in size.items() if axis not in {"y", "x", "c"} and n > 1}
        if "y" not in size or "x" not in size or others or size.get("c", 1) not in {1, 3, 4}:
            raise UnsupportedSlideError(
                f"{self.path}: got axes {size}; expected y and x, 1, 3 or 4 channels c, and "
                "length 1 of any other; save one plane in colour or grey"
            )
        if size.get("c", 1) > 1:
            require_named_colours(self.path, channels, colours)
        bound = limits()
        if math.prod(array.shape) > 4 * bound.level_pixels:
            raise SlideError(f"{self.path}: got a level of {size}; {advice('level_pixels')}")
        if math.prod(array.chunks) > bound.chunk_bytes:
            raise SlideError(f"{self.path}: got chunks of {array.chunks}; {advice('chunk_bytes')}")
        chunks = math.prod(array.shards or array.chunks) // math.prod(array.chunks)
        if chunks > bound.chunk_bytes // _INDEX_ENTRY:
            raise SlideError(
                f"{self.path}: got shards of {chunks:,} chunks, whose index has "
                f"{_INDEX_ENTRY * chunks:,} bytes; {advice('chunk_bytes')}"
            )
        if array.dtype != np.uint8:
            raise UnsupportedSlideError(
                f"{self.path}: got pixels of {array.dtype}; expected uint8; convert it"
            )


def _reopen(path: Path, mpp: float | None, scene: str | None) -> OmeZarrSlide:
    return OmeZarrSlide(path, mpp=mpp, scene=scene)


def _translate_errors(path: Path) -> AbstractContextManager[None]:
    what, expected = "cannot be read as OME-Zarr: ", "a whole OME-Zarr 0.4 or 0.5 image"
    # zarr reads chunks in async tasks, whose errors come in groups.
    return translate_errors(path, what, expected, also=(ExceptionGroup,))


def _open_level(group: Path, name: str) -> Any:  # noqa: ANN401 (a zarr array)
    import zarr

    path = group / name
    if not path.resolve().is_relative_to(group.resolve()):
        raise SlideError(f"{group}: got a level at {name}; expected a path inside the group")
    for metadata in (path / ".zarray", path / "zarr.json"):
        if metadata.is_file() and "pickle" in metadata.read_text():
            raise UnsupportedSlideError(
                f"{path}: got a pickle codec, which can run code; expected an image codec"
            )
    return zarr.open_array(path, mode="r")


def _resolution(scales: dict[str, Any], axes: list[str]) -> Resolution:
    """Multiply the scale of level 0 by that of the image; an axis without a unit is unknown."""
    units = {str(axis["name"]): str(axis.get("unit", "")) for axis in scales["axes"]}
    sizes = dict.fromkeys(axes, 1.0)
    stated = False
    for entry in (scales["datasets"][0], scales):
        for transformation in entry.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                stated = True
                for axis, factor in zip(axes, transformation["scale"], strict=True):
                    sizes[axis] *= parse_um(str(factor)) or math.nan
    if not stated:
        return UNKNOWN
    x, y = (sizes[axis] * micrometres(units[axis]) for axis in "xy")
    return pixel_resolution(x, y, "ome")
