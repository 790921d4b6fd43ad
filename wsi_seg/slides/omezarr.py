"""Owns OME-Zarr images (0.4 in Zarr v2, 0.5 in Zarr v3) as slides.

Axes are taken from the metadata by name: y and x, with or without c; t and z only of length 1.
px are uint8: one channel is grey, three are RGB, of four the last is alpha and left out. Of a
bioformats2raw folder the first image is taken, never the label and overview behind it.
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
from wsi_seg.json_text import parse_json
from wsi_seg.limits import advice, limits
from wsi_seg.slides.failures import explained
from wsi_seg.slides.resolution import UNKNOWN, Resolution, chosen, unit_resolution
from wsi_seg.slides.slide import Recode, Slide, slide_name

_VERSIONS = {"0.4", "0.5"}
_MARKERS = ("zarr.json", ".zgroup", ".zarray")
_MOST_LEVELS = 64
_BIOFORMATS = "bioformats2raw.layout"


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group or array of any kind."""
    return any((folder / name).is_file() for name in _MARKERS)


def is_ome_zarr(folder: Path) -> bool:
    """Whether a Zarr group is an OME-Zarr image, of whatever version."""
    try:
        attributes = _attributes(folder)
    except SlideError:
        return False
    return "multiscales" in attributes or _BIOFORMATS in attributes


class OmeZarrSlide(Slide):
    """An OME-Zarr image; see `wsi_seg.slides.Slide`.

    Parameters
    ----------
    path
        Folder of the group.
    mpp
        Micrometres per px of level 0 that replace what the metadata say.

    Raises
    ------
    SlideError
        If the metadata are damaged.
    UnsupportedSlideError
        If the version, the axes or the px are of a kind that is not read.
    """

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        self.path = path
        self.name = slide_name(path)
        self._override = mpp
        with _explained(path):
            group = path / "0" if _BIOFORMATS in _attributes(path) else path
            version, scales = _multiscales(group)
            self._axes = [str(axis["name"]) for axis in scales["axes"]]
            if len(scales["datasets"]) > _MOST_LEVELS:
                raise SlideError(f"{path}: got {len(scales['datasets'])} levels; expected a few")
            self._arrays = [_open_level(group, entry["path"]) for entry in scales["datasets"]]
            for array in self._arrays:
                self._check(array)
            found = chosen(mpp, _resolution(scales, self._axes))
            self.format = f"ome-zarr {version}"
            self.mpp_source = found.source
            extents = tuple(self._extent(array) for array in self._arrays)
            self.pyramid = Pyramid(extents, found.mpp)

    def read(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # names the levels there are, if it is not one
        require_inside(region, self.pyramid.extents[region.level], self.name)
        rows, columns = region.slices
        wanted: dict[str, int | slice] = {"y": rows, "x": columns, "c": slice(0, 3)}
        with _explained(self.path):
            array = self._arrays[region.level]
            part = np.asarray(array[tuple(wanted.get(axis, 0) for axis in self._axes)])
        kept = [axis for axis in self._axes if axis in wanted]
        if "c" not in kept:
            part, kept = part[..., None], [*kept, "c"]
        pixels = part.transpose([kept.index(axis) for axis in ("y", "x", "c")])
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))

    def streams(self, level: int) -> Recode:
        """Offer no streams: chunks hold other axes, or other codecs, than a store."""
        return Recode("chunks of another OME-Zarr")

    def piece(self, level: int) -> Extent:
        """Size of a chunk."""
        chunk = dict(zip(self._axes, self._arrays[level].chunks, strict=True))
        return Extent(height=chunk["y"], width=chunk["x"])

    def close(self) -> None:
        """Nothing is held open."""

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._override)

    def _extent(self, array: Any) -> Extent:  # noqa: ANN401 (a zarr array)
        size = dict(zip(self._axes, array.shape, strict=True))
        return Extent(height=size["y"], width=size["x"])

    def _check(self, array: Any) -> None:  # noqa: ANN401 (a zarr array)
        size = dict(zip(self._axes, array.shape, strict=True))
        others = {axis: n for axis, n in size.items() if axis not in {"y", "x", "c"} and n > 1}
        if "y" not in size or "x" not in size or others or size.get("c", 1) not in {1, 3, 4}:
            raise UnsupportedSlideError(
                f"{self.path}: got axes {size}; expected y and x, 1, 3 or 4 channels c, and "
                "length 1 of any other; save one plane in colour or grey"
            )
        bound = limits()
        if math.prod(array.shape) > 4 * bound.level_pixels:
            raise SlideError(f"{self.path}: got a level of {size}; {advice('level_pixels')}")
        if math.prod(array.chunks) > bound.chunk_bytes:
            raise SlideError(f"{self.path}: got chunks of {array.chunks}; {advice('chunk_bytes')}")
        if array.dtype != np.uint8:
            raise UnsupportedSlideError(
                f"{self.path}: got px of {array.dtype}; expected uint8; convert it"
            )


def _reopen(path: Path, mpp: float | None) -> OmeZarrSlide:
    return OmeZarrSlide(path, mpp=mpp)


def _explained(path: Path) -> AbstractContextManager[None]:
    what, expected = "cannot be read as OME-Zarr: ", "a whole OME-Zarr 0.4 or 0.5 image"
    return explained(path, what, expected, also=(ExceptionGroup,))  # zarr reads chunks in tasks


def _attributes(folder: Path) -> dict[str, Any]:
    """OME attributes of a group, as 0.4 names them."""
    with _explained(folder):
        if (folder / "zarr.json").is_file():
            found = _read(folder / "zarr.json")["attributes"].get("ome", {})
        else:
            found = _read(folder / ".zattrs")
    return found if isinstance(found, dict) else {}


def _read(file: Path) -> Any:  # noqa: ANN401 (parsed JSON)
    if file.stat().st_size > limits().metadata_bytes:
        raise SlideError(f"{file} has {file.stat().st_size} bytes; {advice('metadata_bytes')}")
    return parse_json(file.read_bytes())


def _multiscales(group: Path) -> tuple[str, dict[str, Any]]:
    """Version and first multiscales entry of a group."""
    attributes = _attributes(group)
    if not attributes.get("multiscales"):
        raise UnsupportedSlideError(
            f"{group}: got a Zarr group without multiscales; expected an OME-Zarr image; name the "
            "folder of one image"
        )
    scales = attributes["multiscales"][0]
    version = str(attributes.get("version") or scales.get("version"))
    if version not in _VERSIONS:
        raise UnsupportedSlideError(
            f"{group}: got OME-Zarr {version}; expected 0.4 or 0.5; convert it"
        )
    return version, scales


def _open_level(group: Path, name: str) -> Any:  # noqa: ANN401 (a zarr array)
    import zarr

    path = group / name
    if not path.resolve().is_relative_to(group.resolve()):
        raise SlideError(f"{group}: got a level at {name}; expected one inside of the group")
    for metadata in (path / ".zarray", path / "zarr.json"):
        if metadata.is_file() and "pickle" in metadata.read_text():
            raise UnsupportedSlideError(
                f"{path}: got a pickle codec, which can run code; expected an image codec"
            )
    return zarr.open_array(path, mode="r")


def _resolution(scales: dict[str, Any], axes: list[str]) -> Resolution:
    """Multiply the scale of level 0 by that of the whole image; axes without units are unknown."""
    units = {str(axis["name"]): str(axis.get("unit", "")) for axis in scales["axes"]}
    sizes = dict.fromkeys(axes, 1.0)
    stated = False
    for entry in (scales["datasets"][0], scales):
        for transformation in entry.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                stated = True
                for axis, factor in zip(axes, transformation["scale"], strict=True):
                    sizes[axis] *= float(factor)
    if not stated:
        return UNKNOWN
    return unit_resolution([(sizes[axis], units[axis]) for axis in "yx"], "ome")
