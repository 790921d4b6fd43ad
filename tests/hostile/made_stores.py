"""Owns collections of stores that are broken in one named way each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np

from tests.hostile.made_tiffs import BOMB_BYTES, deflate_bomb, jpeg_claiming

Json = dict[str, object]
# Breaks the store of one slide, in place.
Damage = Callable[[Path], object]


def write_hostile_stores(good: Path, folder: Path) -> dict[str, Path]:
    """Copy a collection once for each defect, and break its first store.

    Parameters
    ----------
    good
        A collection whose stores have level 0 and a label ``annotations``.
    folder
        Where the copies are written.

    Returns
    -------
    dict[str, Path]
        Collections by what is wrong with them.
    """
    written = {}
    name = min(path.parent.name for path in good.glob("[!.]*/zarr.json"))
    for defect, damage in _DEFECTS.items():
        copy = shutil.copytree(good, folder / defect / good.name, symlinks=True)
        damage(copy / name)
        written[defect] = copy
    return written


def _edited(name: str, change: Callable[[Json], object]) -> Damage:
    """Change a JSON file of the store."""

    def damage(store: Path) -> None:
        document = json.loads((store / name).read_bytes())
        change(document)
        (store / name).write_text(json.dumps(document))

    return damage


def _array(**values: object) -> Damage:
    return _edited("0/zarr.json", lambda document: document.update(values))


def _chunks(shape: list[int], inner: list[int]) -> Damage:
    def change(document: Json) -> None:
        document["chunk_grid"]["configuration"]["chunk_shape"] = shape  # type: ignore[index]
        document["codecs"][0]["configuration"]["chunk_shape"] = inner  # type: ignore[index]

    return _edited("0/zarr.json", change)


def _codec(*codecs: Json) -> Damage:
    def change(document: Json) -> None:
        document["codecs"][0]["configuration"]["codecs"] = list(codecs)  # type: ignore[index]

    return _edited("0/zarr.json", change)


def _ours(**values: object) -> Damage:
    """Change what wsi_seg noted of the slide."""
    return _edited(
        "zarr.json",
        lambda document: document["attributes"]["wsi_seg"].update(values),  # type: ignore[index]
    )


def _level_path(path: str) -> Damage:
    def change(document: Json) -> None:
        scales = document["attributes"]["ome"]["multiscales"][0]  # type: ignore[index]
        scales["datasets"][0]["path"] = path

    return _edited("zarr.json", change)


def _replaced(find: Callable[[Path], Path], put: Callable[[Path], object]) -> Damage:
    """Put something else where a file of the store was."""

    def damage(store: Path) -> None:
        path = find(store)
        path.unlink()
        put(path)

    return damage


def _metadata(store: Path) -> Path:
    return store / "0/zarr.json"


def _shard(store: Path) -> Path:
    return next(path for path in sorted((store / "0/c").rglob("*")) if path.is_file())


def _written(content: bytes, name: str = "zarr.json") -> Damage:
    return lambda store: (store / name).write_bytes(content)


def _index(change: Callable[[np.ndarray], object], *, sealed: bool = True) -> Damage:
    """Change the index of a shard; ``sealed`` gives it a right checksum again."""

    def damage(store: Path) -> None:
        shard = _shard(store)
        document = json.loads((store / "0/zarr.json").read_bytes())
        outer = document["chunk_grid"]["configuration"]["chunk_shape"]
        inner = document["codecs"][0]["configuration"]["chunk_shape"]
        count = int(np.prod(np.array(outer) // np.array(inner)))
        data = shard.read_bytes()
        body, crc = data[: -16 * count - 4], data[-4:]
        index = np.frombuffer(data[-16 * count - 4 : -4], "<u8").reshape(count, 2).copy()
        change(index)
        packed = index.tobytes()
        crc = google_crc32c.value(packed).to_bytes(4, "little") if sealed else crc
        shard.write_bytes(body + packed + crc)

    return damage


def _put(number: int, column: int, value: int) -> Callable[[np.ndarray], object]:
    return lambda index: index.__setitem__((number, column), value)


def _every_chunk(stream: bytes) -> Damage:
    """Let every chunk of the first shard be this stream."""

    def damage(store: Path) -> None:
        def point(index: np.ndarray) -> None:
            index[:] = [0, len(stream)]

        shard = _shard(store)
        shard.write_bytes(stream + shard.read_bytes())
        _index(point)(store)

    return damage


def _then(first: Damage, second: Damage) -> Damage:
    def damage(store: Path) -> None:
        first(store)
        second(store)

    return damage


_BYTES: Json = {"name": "bytes"}
_TRANSPOSE: Json = {"name": "transpose", "configuration": {"order": [1, 2, 0]}}
_JPEG: Json = {"name": "imagecodecs_jpeg", "configuration": {"tables": "no base64!"}}

_DEFECTS: dict[str, Damage] = {
    "metadata-empty": _written(b""),
    "metadata-not-utf-8": _written(b'{"a": "\xff"}'),
    "metadata-deep": _written(b'{"a":' * 100_000),
    "metadata-list": _written(b"[]"),
    "metadata-bomb": _written(b'{"a": "' + b"x" * (40 << 20) + b'"}'),
    "metadata-missing": _replaced(_metadata, lambda path: None),
    "metadata-a-loop": _replaced(_metadata, lambda path: path.symlink_to(path.name)),
    "metadata-a-folder": _replaced(_metadata, Path.mkdir),
    "level-elsewhere": _level_path("../../../other/0"),
    "level-absolute": _level_path("/etc"),
    "level-twice": _level_path("1"),
    "no-levels": _edited("zarr.json", lambda document: document["attributes"]["ome"]["multiscales"][0].update(datasets=[])),  # type: ignore[index]
    "million-levels": _edited("zarr.json", lambda document: document["attributes"]["ome"]["multiscales"][0].update(datasets=[{"path": "0"}] * 100_000)),  # type: ignore[index]
    "mpp-nan": _ours(mpp=float("nan")),
    "mpp-negative": _ours(mpp=-0.5),
    "mpp-text": _ours(mpp="half"),
    "downsample-0": _ours(downsample=0),
    "shape-2-62": _array(shape=[3, 2**62, 2**62]),
    "shape-2-40": _array(shape=[3, 2**20, 2**20]),
    "shape-negative": _array(shape=[3, -100, 100]),
    "shape-of-0": _array(shape=[3, 0, 0]),
    "channels-2-31": _array(shape=[2**31, 700, 530]),
    "chunk-2-31": _chunks([3, 2**31, 2**31], [3, 2**31, 2**31]),
    "chunk-of-0": _chunks([3, 0, 0], [3, 0, 0]),
    "chunk-negative": _chunks([3, -64, -64], [3, -64, -64]),
    "chunk-not-of-shard": _chunks([3, 100, 100], [3, 64, 64]),
    "chunks-by-the-million": _chunks([3, 2**20, 2**20], [3, 1, 1]),
    "codec-unknown": _codec(_TRANSPOSE, {"name": "pickle"}),
    "codec-not-a-mapping": _codec({"name": "zstd", "configuration": [1]}),
    "codec-tables-no-base64": _codec(_TRANSPOSE, _JPEG),
    "codec-other": _codec(_TRANSPOSE, {"name": "imagecodecs_jpegxl"}),
    "index-cut": lambda store: _shard(store).write_bytes(_shard(store).read_bytes()[:-9]),
    "index-empty-file": lambda store: _shard(store).write_bytes(b""),
    "index-crc-mismatch": _index(_put(0, 0, 1), sealed=False),
    "index-outside": _index(_put(0, 0, 2**40)),
    "index-wraps-around": _index(_put(0, 1, 2**64 - 2)),
    "index-of-nothing": _index(lambda index: index.__setitem__((slice(None), 1), 0)),
    "chunk-of-noise": _every_chunk(bytes(range(256)) * 8),
    "chunk-bomb": _then(_codec(_TRANSPOSE, _BYTES, {"name": "imagecodecs_zlib"}), _every_chunk(deflate_bomb(BOMB_BYTES))),
    "chunk-claims-more": _then(_codec(_TRANSPOSE, {"name": "imagecodecs_jpeg"}), _every_chunk(jpeg_claiming(65_000, 65_000))),
    "chunk-too-short": _then(_codec(_TRANSPOSE, _BYTES), _every_chunk(b"abc")),
    "shard-a-folder": _replaced(_shard, Path.mkdir),
    "shard-a-loop": _replaced(_shard, lambda path: path.symlink_to(path.name)),
    "labels-elsewhere": _written(b'{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", "labels": ["../../../other", "annotations"]}}}', "labels/zarr.json"),
    "labels-no-json": _written(b"{", "labels/zarr.json"),
    "label-shape-2-62": _edited("labels/annotations/0/zarr.json", lambda document: document.update(shape=[2**62, 2**62])),
    "label-classes-text": _edited("labels/annotations/zarr.json", lambda document: document["attributes"]["wsi_seg"].update(classes="gland")),  # type: ignore[index]
    "label-classes-long": _edited("labels/annotations/zarr.json", lambda document: document["attributes"]["wsi_seg"].update(classes=[{"name": "x" * 9999}] * 300)),  # type: ignore[index]
    "label-chunk-of-noise": lambda store: [path.write_bytes(b"noise" * 99) for path in (store / "labels/annotations/0/c").rglob("*") if path.is_file()],
    "objects-no-parquet": lambda store: [path.write_bytes(b"PAR1" * 50) for path in (store / "labels/annotations/.wsi_seg").glob("objects*")],
}  # fmt: skip
