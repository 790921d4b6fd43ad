"""Owns made-up OME-Zarr images as other programs write them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

_KIND = {"t": "time", "c": "channel"}


def write_ome_zarr(
    path: Path,
    levels: Sequence[NDArray[Any]],
    *,
    axes: str = "cyx",
    version: Literal["0.4", "0.5"] = "0.5",
    mpp: float | tuple[float, float] | None = None,
    unit: str = "micrometer",
    fill_value: int = 0,
    attributes: Mapping[str, object] | None = None,
) -> None:
    """Write an OME-Zarr image.

    Parameters
    ----------
    path
        Folder of the group.
    levels
        Pixels, finest first: ``(H, W, C)``, or already in the order of axes that have no c.
    axes
        Letters of the axes in the order they are stored; t and z have length 1.
    version
        Of OME-Zarr.
    mpp
        Size of a pixel of level 0 in ``unit``, or sizes along y and x; None writes a scale of 1.
    fill_value
        Value of pixels in chunks that are missing.
    unit
        Name of the unit, or nothing.
    attributes
        More attributes of the group.
    """
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets: list[object] = []
    for number, level in enumerate(levels):
        stored = _arranged(level, axes)
        chunks = tuple({"y": 64, "x": 48}.get(axis, 1) for axis in axes)
        array = group.create_array(
            str(number),
            shape=stored.shape,
            dtype=stored.dtype,
            chunks=chunks,
            fill_value=fill_value,
        )
        array[...] = stored
        down = levels[0].shape[0] / level.shape[0]
        y, x = mpp if isinstance(mpp, tuple) else (mpp or 1.0, mpp or 1.0)
        scale = [{"y": y * down, "x": x * down}.get(axis, 1.0) for axis in axes]
        transformation = {"type": "scale", "scale": scale}
        datasets.append({"path": str(number), "coordinateTransformations": [transformation]})
    names = [
        {"name": axis, "type": _KIND.get(axis, "space")}
        | ({"unit": unit} if axis in "yx" and unit else {})
        for axis in axes
    ]
    scales: dict[str, object] = {"axes": names, "datasets": datasets, "name": "made up"}
    if version == "0.4":
        stated: dict[str, Any] = {"multiscales": [{**scales, "version": version}]}
    else:
        stated = {"ome": {"version": version, "multiscales": [scales]}}
    group.update_attributes(stated | dict(attributes or {}))


def _arranged(level: NDArray[Any], axes: str) -> NDArray[Any]:
    """Bring ``(H, W, C)`` into the order of the axes."""
    if "c" not in axes:
        return level
    stored = np.transpose(level, ["yxc".index(axis) for axis in axes if axis in "yxc"])
    for place, axis in enumerate(axes):
        if axis not in "yxc":
            stored = np.expand_dims(stored, place)
    return stored
