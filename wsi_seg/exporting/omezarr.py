"""Owns writing predictions as OME-Zarr 0.4 or 0.5, as a folder or a single ``.ozx`` file."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from wsi_seg.choices import Ngff
from wsi_seg.exporting.instances import STRIP_PX, instance_strips
from wsi_seg.exporting.outlines import Outlines
from wsi_seg.files.atomic import atomic_folder, atomic_path
from wsi_seg.files.half_written import scratch_folder
from wsi_seg.geometry import Extent, Region
from wsi_seg.store import Multiscale
from wsi_seg.store.names import LABELS, METADATA

_CHUNK_PX = 512
# Shards are as high as a strip, and at most this many chunks wide.
_SHARD_CHUNKS = 8

# Readers load the colours and classes of all labels; they are omitted for more objects than this.
_MAX_COLOURED = 10_000


def write_ome_zarr(
    path: Path, image: Multiscale, objects: Outlines, name: str, *, ngff: Ngff = "0.5"
) -> None:
    """Write a prediction as OME-Zarr with the labels ``classes`` and ``objects``.

    The values of ``objects`` are the uint32 numbers of the object table, in the colours of their
    classes. Version 0.4 is zarr v2 with blosc, which QuPath and ImageJ read; 0.5 is zarr v3 with
    shards. Memory holds one strip.

    Parameters
    ----------
    path
        Folder to write atomically, or a file that ends with ``.ozx``: a zip of version 0.5.
    image
        Probabilities ``(H, W, C)`` uint8, value / 255; class ids ``(H, W)`` if only those were
        saved.
    objects
        Objects of the exported label map.
    name
        Name of the slide.
    ngff
        OME-Zarr version.

    Raises
    ------
    OutputError
        If the folder or file cannot be written.
    """
    if path.suffix != ".ozx":
        with atomic_folder(path) as folder:
            _write(folder, image, objects, name, ngff)
        return
    with atomic_path(path) as file, scratch_folder(path) as folder:
        _write(folder, image, objects, name, "0.5")
        _zip(folder, file)


def _write(folder: Path, image: Multiscale, objects: Outlines, name: str, ngff: Ngff) -> None:
    label = objects.label
    writer = _Writer(folder, ngff)
    writer.write_levels("", image, _image_metadata(image, name))
    writer.write_group(LABELS, {"labels": ["classes", "objects"]})
    colours = [(entry.id, entry.rgb, entry.name) for entry in objects.classes]
    writer.write_levels(f"{LABELS}/classes", label, _label_metadata("classes", colours))
    about = _label_metadata("objects", _object_colours(objects))
    writer.write_objects(f"{LABELS}/objects", objects, about)


_Colours = Sequence[tuple[int, tuple[int, int, int], str]]


def _object_colours(objects: Outlines) -> _Colours:
    """List the number, colour and class of each object, or nothing if there are too many."""
    if len(objects.table) > _MAX_COLOURED:
        return ()
    classes = {entry.name: entry for entry in objects.classes}
    names = [classes[name] for name in objects.table.class_name.tolist()]
    return [(number, entry.rgb, entry.name) for number, entry in enumerate(names, 1)]


def _label_metadata(name: str, colours: _Colours) -> dict[str, object]:
    """Build the ``image-label`` metadata: the colours and classes of label values."""
    return {
        "name": name,
        "image-label": {
            "colors": [{"label-value": value, "rgba": [*rgb, 255]} for value, rgb, _ in colours],
            "properties": [{"label-value": value, "class": text} for value, _, text in colours],
            "source": {"image": "../../"},
        },
    }


def _image_metadata(image: Multiscale, name: str) -> dict[str, object]:
    """Build the metadata of an image: its name, and the ``omero`` channels if it has any."""
    if image.channels is None:
        return {"name": name}
    channels = [
        {
            "label": entry.name,
            "color": entry.colour.removeprefix("#").upper(),
            "active": True,
            "window": {"min": 0, "max": 255, "start": 0, "end": 255},
        }
        for entry in image.classes
    ]
    return {"name": name, "omero": {"channels": channels}}


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes groups and arrays of one OME-Zarr version below a folder."""

    folder: Path
    ngff: Ngff

    def write_group(self, inside: str, ome: Mapping[str, object]) -> None:
        """Write a group with OME's attributes."""
        old = self.ngff == "0.4"
        attributes = dict(ome) if old else {"ome": {"version": "0.5", **ome}}
        zarr.create_group(
            LocalStore(self.folder / inside), attributes=attributes, zarr_format=2 if old else 3
        )

    def write_levels(self, inside: str, image: Multiscale, about: Mapping[str, object]) -> None:
        """Copy all levels of an image."""
        self._describe(inside, image, about)
        for level, extent in enumerate(image.pyramid.extents):
            lead = () if image.channels is None else (image.channels,)
            array = self._array(f"{inside}/{level}", (*lead, extent.height, extent.width), np.uint8)
            for strip in extent.strips(STRIP_PX, level):
                pixels = image.read(strip, cached=False)
                array[..., *strip.slices] = pixels if not lead else np.moveaxis(pixels, -1, 0)

    def write_objects(self, inside: str, objects: Outlines, about: Mapping[str, object]) -> None:
        """Write the object numbers; each coarser level takes the nearest pixels of the finer."""
        label = objects.label
        self._describe(inside, label, about)
        extents = label.pyramid.extents
        planes = () if label.channels is None else (label.channels,)
        arrays = [
            self._array(f"{inside}/{level}", (*planes, extent.height, extent.width), np.uint32)
            for level, extent in enumerate(extents)
        ]
        for number, part in enumerate(objects.parts):
            plane = (number,) if planes else ()
            for strip, numbers in instance_strips(part):
                arrays[0][(*plane, *strip.slices)] = numbers
            for finer, array, extent in zip(arrays, arrays[1:], extents[1:], strict=False):
                for strip, numbers in _subsampled(finer, plane, extent):
                    array[(*plane, *strip.slices)] = numbers

    def _describe(self, inside: str, image: Multiscale, about: Mapping[str, object]) -> None:
        old = self.ngff == "0.4"
        version = {"version": "0.4"} if old else {}
        rest = {key: value for key, value in about.items() if key != "name"}
        if old and isinstance(label := rest.get("image-label"), dict):
            rest["image-label"] = {**version, **label}
        scales = {**version, "name": about["name"], **_levels(image)}
        self.write_group(inside, {"multiscales": [scales], **rest})

    def _array(
        self, inside: str, shape: Sequence[int], dtype: type[np.unsignedinteger[Any]]
    ) -> "zarr.Array[Any]":
        lead = (1,) * (len(shape) - 2)
        chunks = (*lead, _CHUNK_PX, _CHUNK_PX)
        store = LocalStore(self.folder / inside.removeprefix("/"))
        if self.ngff == "0.4":
            packed = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
            return zarr.create_array(
                store, shape=tuple(shape), dtype=dtype, chunks=chunks, compressors=packed,
                fill_value=0, zarr_format=2,
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )  # fmt: skip
        shards = (*lead, STRIP_PX, _CHUNK_PX * min(_SHARD_CHUNKS, -(-shape[-1] // _CHUNK_PX)))
        return zarr.create_array(
            store, shape=tuple(shape), dtype=dtype, chunks=chunks, shards=shards, fill_value=0,
            compressors=BloscCodec(cname="zstd", clevel=5),
            dimension_names="cyx"[-len(shape) :],
        )  # fmt: skip


def _subsampled(
    array: "zarr.Array[Any]", plane: tuple[int, ...], extent: Extent
) -> Iterator[tuple[Region, NDArray[np.uint32]]]:
    """Subsample a finer level to ``extent`` by nearest neighbour, in strips ``(h, W)`` uint32."""
    for strip in extent.strips(STRIP_PX):
        rows = _nearest(strip.y, strip.y_end, array.shape[-2], extent.height)
        columns = _nearest(0, extent.width, array.shape[-1], extent.width)
        reached = slice(int(rows[0]), int(rows[-1]) + 1)
        place: tuple[int | slice, ...] = (*plane, reached, slice(None))
        part = np.asarray(array[place], dtype=np.uint32)
        yield strip, part[rows - rows[0]][:, columns]


def _nearest(begin: int, end: int, full: int, small: int) -> NDArray[np.int64]:
    """Map indices of an axis of ``small`` pixels to the nearest of the same axis at ``full``."""
    whole = -(-full // small)
    scale = whole if -(-full // whole) == small else full / small
    return np.minimum(((np.arange(begin, end) + 0.5) * scale).astype(np.int64), full - 1)


def _levels(image: Multiscale) -> dict[str, object]:
    """Build the ``axes`` and ``datasets`` of an image, which both versions share."""
    mpp = image.pyramid.mpp
    unit = {} if mpp is None else {"unit": "micrometer"}
    lead = [] if image.channels is None else [{"name": "c", "type": "channel"}]
    axes = [*lead, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    size = image.downsample if mpp is None else mpp
    datasets = []
    for level in range(len(image.pyramid.extents)):
        scale = image.pyramid.downsample(level) * size
        scales = [*(1.0 for _ in lead), scale, scale]
        transform = [{"type": "scale", "scale": scales}]
        datasets.append({"path": str(level), "coordinateTransformations": transform})
    return {"axes": axes, "datasets": datasets}


def _zip(folder: Path, file: Path) -> None:
    """Zip a folder as RFC 9 recommends: metadata first, without compression."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    ordered = sorted(paths, key=lambda p: (p.name != METADATA, len(p.parts), p.as_posix()))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in ordered:
            archive.write(folder / path, path.as_posix())
        archive.comment = json.dumps({"ome": {"version": "0.5"}}).encode() + b"\0"
