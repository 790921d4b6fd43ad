"""Owns the layout of multiscale groups: OME-Zarr 0.5 metadata, zarr arrays."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.object_folder import put_all
from wsi_seg.files.object_path import object_path
from wsi_seg.geometry import Extent, Pyramid
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.group import group_document, list_label, own_attributes, write_group
from wsi_seg.store.multiscale import Multiscale
from wsi_seg.store.names import LABELS, METADATA, OWN
from wsi_seg.store.own import EMPTY_ARRAY

# Width of a shard in strip heights: wide shards need fewer files, and no more memory.
_SHARD_ASPECT = 8


@dataclass(frozen=True, slots=True)
class LevelLayout:
    """Storage layout of one level.

    Parameters
    ----------
    extent
        Size of the level.
    chunk, shard
        Size in pixels of a chunk, and of a shard, which is a multiple of it.
    encoding
        Codecs of the chunks.
    fill
        Pixel value of missing chunks, 0 to 255.
    """

    extent: Extent
    chunk: Extent
    shard: Extent
    encoding: Encoding = Encoding()  # noqa: RUF009 (frozen)
    fill: int = 0


def strip_layout(
    extent: Extent,
    *,
    chunk_px: int = 512,
    shard_px: int = 1024,
    encoding: Encoding = Encoding(),  # noqa: B008 (frozen)
) -> LevelLayout:
    """Return the layout of a level for writing in strips of ``shard_px`` rows."""
    if chunk_px < 1 or shard_px % chunk_px:
        raise StoreError(f"got shard_px={shard_px}, chunk_px={chunk_px}; expected a whole multiple")
    columns = min(_SHARD_ASPECT, -(-extent.width // shard_px))
    return LevelLayout(
        extent,
        Extent(height=chunk_px, width=chunk_px),
        Extent(height=shard_px, width=shard_px * columns),
        encoding,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Storage layout of an image or label to be written.

    Parameters
    ----------
    levels
        Layout of each level, finest first.
    channels
        Number of channels, or None for a 2-D label.
    mpp
        Micrometres per pixel of the slide's level 0, or None if unknown.
    downsample
        Level-0 pixels of the slide per pixel of this image's level 0.
    coarser
        Whether levels 1 and up are computed from level 0; otherwise the caller writes them.

    Examples
    --------
    >>> extent = Extent(height=3000, width=4000)
    >>> layout = Layout.of(extend_pyramid([extent]), channels=3, mpp=0.5)
    >>> [str(extent) for extent in layout.extents]
    ['4000 x 3000 px', '2000 x 1500 px', '1000 x 750 px']
    """

    levels: tuple[LevelLayout, ...]
    channels: int | None
    mpp: float | None
    downsample: float = 1.0
    coarser: bool = True

    @classmethod
    def of(
        cls,
        extents: Sequence[Extent],
        *,
        channels: int | None,
        mpp: float | None,
        downsample: float = 1.0,
        coarser: bool = True,
        chunk_px: int = 512,
        shard_px: int = 1024,
    ) -> "Layout":
        """Return the layout of levels of these sizes for writing in strips of ``shard_px`` rows."""
        return cls(
            levels=tuple(strip_layout(e, chunk_px=chunk_px, shard_px=shard_px) for e in extents),
            channels=channels,
            mpp=mpp,
            downsample=downsample,
            coarser=coarser,
        )

    @classmethod
    def like(cls, image: Multiscale, *, channels: int | None = None) -> "Layout":
        """Return a layout with the size of an image, for a label unless channels are given."""
        return cls.of(
            image.pyramid.extents,
            channels=channels,
            mpp=image.slide_mpp,
            downsample=image.downsample,
        )

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Size of each level, finest first."""
        return tuple(level.extent for level in self.levels)


def create_multiscale(path: Path, layout: Layout, attributes: Mapping[str, object]) -> None:
    """Write the metadata of an empty multiscale image or label.

    Existing metadata of levels are kept, so that unfinished work can be continued.

    Parameters
    ----------
    path
        Group folder; a parent called ``labels`` lists it as an NGFF label.
    layout
        Size and resolution.
    attributes
        Plain JSON values to store under ``wsi_seg``; ``mpp``, ``downsample`` and the ``shapes`` of
        the levels are added.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    ome: dict[str, object] = {"version": "0.5", "multiscales": [_multiscales(layout, path.name)]}
    if layout.channels is None or attributes.get("kind") == "label":
        ome["image-label"] = _image_label(attributes)
    if path.parent.name == LABELS:
        list_label(path.parent, path.name)
    lead = () if layout.channels is None else (layout.channels,)
    record = {
        "mpp": layout.mpp,
        "downsample": layout.downsample,
        "shapes": [[*lead, extent.height, extent.width] for extent in layout.extents],
    }
    stored = {"ome": ome, **own_attributes({**attributes, **record})}
    arrays = {
        str(number): _array_document(level, layout.channels)
        for number, level in enumerate(layout.levels)
    }
    if (remote := object_path(path)) is not None:
        there = remote.sizes()
        files = {f"{name}/{METADATA}": document for name, document in arrays.items()}
        files[f"{OWN}/{METADATA}"] = EMPTY_ARRAY
        files = {name: one for name, one in files.items() if remote / name not in there}
        files[METADATA] = group_document(stored)
        put_all({remote / name: one for name, one in files.items()}, remote)
        return
    for name, array in arrays.items():
        if not (path / name / METADATA).is_file():
            try:
                (path / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError.of(path, error) from error
            write_atomic(path / name / METADATA, array)
    write_group(path, stored)


def _multiscales(layout: Layout, name: str) -> dict[str, object]:
    mpp, channels = layout.mpp, layout.channels
    unit = {} if mpp is None else {"unit": "micrometer"}
    axes: list[dict[str, str]] = [
        {"name": "y", "type": "space", **unit},
        {"name": "x", "type": "space", **unit},
    ]
    if channels is not None:
        axes.insert(0, {"name": "c", "type": "channel"})
    pyramid = Pyramid(layout.extents)
    datasets = []
    for number in range(len(layout.levels)):
        scale = pyramid.downsample(number) * layout.downsample * (1.0 if mpp is None else mpp)
        scales = [scale, scale] if channels is None else [1.0, scale, scale]
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [{"type": "scale", "scale": scales}],
            }
        )
    return {"name": name, "axes": axes, "datasets": datasets}


def _image_label(attributes: Mapping[str, object]) -> dict[str, object]:
    """Return the NGFF ``image-label``: colours of ids 1, 2, 3 ... in the order of the table."""
    classes = attributes.get("classes")
    if isinstance(classes, dict):
        classes = classes.get("table")
    if not isinstance(classes, list):
        return {}
    colours = [
        {"label-value": number, "rgba": [*bytes.fromhex(entry["colour"].removeprefix("#")), 255]}
        for number, entry in enumerate(classes, 1)
        if entry.get("colour")
    ]
    return {"colors": colours, "source": {"image": "../../"}}


def _array_document(level: LevelLayout, channels: int | None) -> bytes:
    zarr = importlib.import_module("zarr")
    made: dict[str, Any] = {}
    codecs = level.encoding.to_zarr(channels=channels is not None)
    lead = () if channels is None else (channels,)
    zarr.create_array(
        store=zarr.storage.MemoryStore(made),
        name="0",
        shape=(*lead, level.extent.height, level.extent.width),
        dtype="uint8",
        chunks=(*lead, level.chunk.height, level.chunk.width),
        shards=(*lead, level.shard.height, level.shard.width),
        filters=codecs.filters or None,
        serializer=codecs.serializer,
        compressors=codecs.compressors or None,
        fill_value=level.fill,
        dimension_names=["y", "x"] if channels is None else ["c", "y", "x"],
    )
    document: bytes = made[f"0/{METADATA}"].to_bytes()
    return document
