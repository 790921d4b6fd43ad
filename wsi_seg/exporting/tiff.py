"""Owns writing probabilities and label maps as pyramidal OME-TIFF, tile by tile."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_seg.files.atomic import atomic_path
from wsi_seg.geometry import Region
from wsi_seg.store import Multiscale

_TILE_PX = 512


def write_ome_tiff(path: Path, image: Multiscale, name: str) -> None:
    """Write all levels of a prediction or label map, atomically.

    The image is named after its slide. Channels are planes with the names and colours of the
    classes; a single channel of class ids lists them in its name. Levels are in SubIFDs, as the
    specification requires. Memory holds a few tiles.

    Parameters
    ----------
    path
        File to write, usually ``.ome.tif``.
    image
        Probabilities ``(H, W, C)`` uint8, value / 255, or class ids ``(H, W)`` uint8.
    name
        Name of the slide.
    """
    about = _metadata(image, name)
    # Derived from the content, because a random UUID would make equal exports differ.
    content = json.dumps([name, about, dict(image.attributes)], sort_keys=True, default=str)
    about["UUID"] = str(uuid5(NAMESPACE_OID, content))
    with (
        atomic_path(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as tiff,
    ):
        for level, extent in enumerate(image.pyramid.extents):
            shape = (extent.height, extent.width)
            tiff.write(
                _tiles(image, level),
                shape=shape if image.channels is None else (image.channels, *shape),
                dtype=np.uint8,
                tile=(_TILE_PX, _TILE_PX),
                photometric="minisblack",
                planarconfig=None,
                compression="zlib",
                subifds=len(image.pyramid.extents) - 1 if level == 0 else None,
                subfiletype=1 if level else 0,
                metadata=about if level == 0 else None,
            )


def _metadata(image: Multiscale, name: str) -> dict[str, object]:
    """Build the OME metadata that tifffile writes as OME-XML."""
    mpp = image.pyramid.mpp
    size = {} if mpp is None else _physical(mpp)
    if image.channels is None:
        ids = ", ".join(f"{entry.id} {entry.name}" for entry in image.classes)
        return {"axes": "YX", "Name": name, **size, "Channel": {"Name": f"class ids: {ids}"}}
    channel = {
        "Name": list(image.classes.names),
        "Color": [_signed((*entry.rgb, 255)) for entry in image.classes],
    }
    return {"axes": "CYX", "Name": name, **size, "Channel": channel}


def _signed(rgba: tuple[int, int, int, int]) -> int:
    """Pack a colour into a signed 32-bit RGBA integer, as OME stores it."""
    return int.from_bytes(bytes(rgba), "big", signed=True)


def _physical(mpp: float) -> dict[str, object]:
    return {
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
    }


def _tiles(image: Multiscale, level: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the tiles ``(h, w)`` of one level, channel by channel, padded to full size."""
    extent = image.pyramid.extents[level]
    for channel in range(image.channels or 1):
        for y in range(0, extent.height, _TILE_PX):
            for x in range(0, extent.width, _TILE_PX):
                region = Region(level=level, y=y, x=x, height=_TILE_PX, width=_TILE_PX)
                px = image.read(region.clip(extent), cached=image.channels is not None)
                plane = px if image.channels is None else px[:, :, channel]
                missing = (_TILE_PX - plane.shape[0], _TILE_PX - plane.shape[1])
                yield np.pad(plane, ((0, missing[0]), (0, missing[1])))
