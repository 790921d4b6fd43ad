"""Owns writing predictions as SpatialData stores; the only module that imports spatialdata."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr

from wsi_seg.exporting.instances import STRIP_PX, instance_strips
from wsi_seg.exporting.outlines import Outlines
from wsi_seg.files.atomic import atomic_folder
from wsi_seg.files.half_written import scratch_folder

if TYPE_CHECKING:
    from anndata import AnnData
    from dask.array import Array
    from geopandas import GeoDataFrame
    from xarray import DataTree

_CHUNK_PX = 1024


def write_spatialdata(path: Path, objects: Outlines, name: str, slide: Path | None) -> None:
    """Write a prediction as a SpatialData store, atomically.

    The store has the labels ``classes`` and ``objects``, the shapes ``outlines``, and a table that
    annotates the objects with their class and measurements. The unit of the coordinate system
    ``global`` is um (level-0 pixels if mpp is unknown). The slide is not copied; the attribute
    ``slide`` holds its path. Pixels are read in strips; outlines are held in memory all at once.

    Parameters
    ----------
    path
        Folder to write.
    objects
        Objects of the exported label map.
    name, slide
        Name of the slide, and the path of its store; None if that is unknown.

    Raises
    ------
    OutputError
        If the store cannot be written.
    MissingLibraryError
        If the extra ``spatialdata`` is not installed; raised by the command line.
    """
    from spatialdata import SpatialData

    label = objects.label
    size = label.pyramid.mpp or label.downsample
    with atomic_folder(path) as folder, scratch_folder(path) as work:
        numbers = _numbered(work / "objects", objects)
        levels = len(label.pyramid.extents)
        data = SpatialData(
            labels={
                "classes": _labels(label.to_dask(), size, levels),
                "objects": _labels(numbers, size, levels),
            },
            shapes={"outlines": _shapes(objects, size / label.downsample)},
            tables={"measurements": _table(objects)},
            attrs={"slide": {"name": name, "store": None if slide is None else str(slide)}},
        )
        data.write(folder / "store")
        for part in (folder / "store").iterdir():
            part.rename(folder / part.name)
        (folder / "store").rmdir()


def _numbered(path: Path, objects: Outlines) -> "Array":
    """Write the object numbers to a temporary zarr array, and return it as a dask array."""
    import dask.array

    extent = objects.label.pyramid.extent
    array = zarr.create_array(
        zarr.storage.LocalStore(path),
        shape=(extent.height, extent.width),
        dtype=np.uint32,
        chunks=(STRIP_PX, _CHUNK_PX),
    )
    for strip, numbers in instance_strips(objects.parts[0]):
        array[strip.slices] = numbers
    lazy: Array = dask.array.from_zarr(str(path))  # type: ignore[no-untyped-call]
    return lazy


def _labels(pixels: "Array", size: float, levels: int) -> "DataTree":
    """Make a SpatialData label element; spatialdata computes its coarser levels."""
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import Scale

    parsed: DataTree = Labels2DModel.parse(
        pixels,
        dims=("y", "x"),
        transformations={"global": Scale([size, size], axes=("y", "x"))},
        scale_factors=[2] * (levels - 1) or None,
        chunks=(_CHUNK_PX, _CHUNK_PX),
    )
    return parsed


def _shapes(objects: Outlines, size: float) -> "GeoDataFrame":
    """Make a table of outlines by object number; ``size`` is that of a level-0 pixel."""
    import geopandas
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Scale

    names = np.array(["", *objects.classes.names], dtype=object)
    batches = list(objects.batches())
    polygons = np.concatenate([np.empty(0, dtype=object), *(b.polygons for b in batches)])
    number = np.concatenate([np.empty(0, dtype=np.int64), *(b.number for b in batches)])
    class_id = np.concatenate([np.empty(0, dtype=np.int64), *(b.class_id for b in batches)])
    order = np.argsort(number)
    frame = geopandas.GeoDataFrame(
        {"class": names[class_id[order]]}, geometry=polygons[order], index=number[order]
    )
    return ShapesModel.parse(
        frame, transformations={"global": Scale([size, size], axes=("x", "y"))}
    )


def _table(objects: Outlines) -> "AnnData":
    """Make the table of measurements that annotates the label ``objects``."""
    import anndata
    import pandas
    from spatialdata.models import TableModel

    table = objects.table
    figures = ("area", "perimeter", "eccentricity", "mean_probability", "max_probability")
    about = pandas.DataFrame(
        {
            "object": table.id,
            "region": pandas.Categorical(["objects"] * len(table)),
            "class": pandas.Categorical(table.class_name, categories=objects.classes.names),
        },
        index=table.id.astype(str),
    )
    cells = anndata.AnnData(
        np.stack([getattr(table, figure) for figure in figures], axis=1),
        obs=about,
        var=pandas.DataFrame(index=list(figures)),
    )
    down = objects.label.downsample
    cells.obsm["spatial"] = (
        np.stack([table.x, table.y], axis=1) / down * (objects.label.pyramid.mpp or down)
    )
    parsed: anndata.AnnData = TableModel.parse(
        cells, region="objects", region_key="region", instance_key="object"
    )
    return parsed
