"""Owns annotation files, recipes and cards that are broken in one named way each."""

import gzip
from pathlib import Path

from tests.hostile.made_tiffs import BOMB_BYTES, deflate_bomb

_RING = "[[10, 10], [60, 10], [60, 50], [10, 50], [10, 10]]"


def write_hostile_annotations(folder: Path, slide: str) -> dict[str, Path]:
    """Write every broken annotation file, each in a folder of its own, named like a slide.

    Returns
    -------
    dict[str, Path]
        Files by what is wrong with them.
    """
    written = {}
    for name, (suffix, content) in _ANNOTATIONS.items():
        path = folder / name / f"{slide}.{suffix}"
        path.parent.mkdir()
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        written[name] = path
    return written


def write_hostile_recipes(folder: Path, store: Path) -> dict[str, Path]:
    """Write every broken recipe; files by what is wrong with them."""
    written = {}
    for name, text in _RECIPES.items():
        path = folder / f"{name}.yaml"
        found = text if isinstance(text, bytes) else text.replace("STORE", str(store)).encode()
        path.write_bytes(found)
        written[name] = path
    return written


def _feature(geometry: str, properties: str = '{"class": "gland"}') -> str:
    return (
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": '
        f'{geometry}, "properties": {properties}}}]}}'
    )


def _polygon(coordinates: str) -> str:
    return _feature(f'{{"type": "Polygon", "coordinates": {coordinates}}}')


def _packed_lists() -> bytes:
    """Pack small lists by the million: a gzip file of one block again and again."""
    # A block of a gzip stream that ends on a byte may be repeated; members may follow each other.
    head, block, tail = b'[{"geometry": 0}', b',{"geometry":[]}' * (1 << 16), b"]"
    return b"".join(gzip.compress(part) for part in (head, *[block] * 1500, tail))


def _xml(inner: str, before: str = "") -> str:
    return f'<?xml version="1.0"?>{before}<ASAP_Annotations><Annotations>{inner}</Annotations></ASAP_Annotations>'


def _rle(counts: str) -> str:
    return _COCO.replace("SEGMENTATION", f'{{"size": [80, 90], "counts": {counts}}}')


def _knots(count: int) -> str:
    """Outline many knots of 90 vertices each."""
    knot = _polygon(f"[{_zigzag(90)}]")
    feature = knot[knot.index("[") + 1 : -2]
    return '{"type": "FeatureCollection", "features": [' + ",".join([feature] * count) + "]}"


def _zigzag(count: int) -> str:
    """Draw a ring whose sides all cross each other."""
    return "[" + ", ".join(f"[{n * 7919 % 80}, {n * 104729 % 83}]" for n in range(count)) + "]"


_KNOTS = _zigzag(3000)
_COCO = '{"images": [{"id": 1, "file_name": "slide.tif", "height": 80, "width": 90}], "categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": SEGMENTATION}]}'
_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha" * 50}">' for n in range(10))
_OUTLINE = '<Annotation Name="a" Type="Polygon" PartOfGroup="gland"><Coordinates>{}</Coordinates></Annotation>'

_ANNOTATIONS: dict[str, tuple[str, str | bytes]] = {
    "json-deep": ("geojson", "[" * 100_000 + "]" * 100_000),
    "json-deep-objects": ("geojson", '{"type":' * 50_000),
    "json-deep-coordinates": ("geojson", _polygon("[" * 5000 + "1" + "]" * 5000)),
    "json-not-utf-8": ("geojson", b'[{"geometry": null, "properties": {"class": "\xff\xfe"}}]'),
    "json-utf-16-half": ("geojson", "[{}]".encode("utf-16")[:-1]),
    "json-nul": ("geojson", b"\0" * 1000),
    "json-truncated": ("geojson", _polygon(f"[{_RING}]")[:-9]),
    "json-nan": ("geojson", _polygon(f"[{_RING}]").replace("60", "NaN")),
    "json-infinity": ("geojson", _polygon(f"[{_RING}]").replace("60", "1e999")),
    "json-long-number": ("geojson", _polygon(f"[{_RING}]").replace("60", "6" * 5000)),
    "json-text-as-number": ("geojson", _polygon(f"[{_RING}]").replace("60", '"sixty"')),
    "json-million-lists": ("geojson.gz", _packed_lists()),
    "gzip-bomb": ("geojson.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + deflate_bomb(BOMB_BYTES, raw=True) + bytes(8)),
    "gzip-truncated": ("geojson.gz", gzip.compress(_polygon(f"[{_RING}]").encode())[:40]),
    "gzip-wrong-checksum": ("geojson.gz", gzip.compress(_polygon(f"[{_RING}]").encode())[:-8] + bytes(8)),
    "gzip-of-noise": ("geojson.gz", b"\x1f\x8b\x08\0" + bytes(range(256))),
    "three-million-vertices": ("geojson", _polygon("[[" + ",".join(["[1,2],[3,4],[5,1]"] * 1_000_000) + "]]")),
    "ring-of-knots": ("geojson", _polygon(f"[{_KNOTS}]")),
    "many-knots": ("geojson", _knots(1000)),
    "coco-knots": ("json", _COCO.replace("SEGMENTATION", "[" + _KNOTS.replace("], [", ", ").replace("[[", "[").replace("]]", "]") + "]")),
    "json-huge-coordinates": ("geojson", _polygon(f"[{_RING}]").replace("60", "1e300")),
    "labelme-lying-size": ("json", '{"version": "5", "imageHeight": 9999999999, "imageWidth": -1, "imagePath": "../../../etc/passwd", "shapes": [{"label": "a", "points": [[0, 0], [9, 9], [0, 9]], "shape_type": "polygon"}]}'),
    "coco-lying-rle": ("json", '{"images": [{"id": 1, "file_name": "../../slide.tif", "height": 80, "width": 90}], "categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [2000000000, 2000000000], "counts": [0, 4000000000000000000]}}]}'),
    "coco-rle-overflow": ("json", _rle('[9223372036854775807, 9223372036854775807]')),
    "coco-rle-of-30-digits": ("json", _rle("[1, " + "9" * 30 + "]")),
    "coco-packed-endless": ("json", _rle('"' + "o" * 100_000 + '"')),
    "xml-billion-laughs": ("xml", _xml("&l9;", f"<!DOCTYPE a [{_LAUGHS}]>")),
    "xml-other-file": ("xml", _xml("&x;", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>')),
    "xml-laughs-in-utf-16": ("xml", _xml("&l9;", f"<!DOCTYPE a [{_LAUGHS}]>").encode("utf-16")),
    "xml-deep": ("xml", _xml("<a>" * 300_000 + "</a>" * 300_000)),
    "xml-truncated": ("xml", _xml(_OUTLINE.format(""))[:-30]),
    "xml-nan": ("xml", _xml(_OUTLINE.format('<Coordinate Order="0" X="nan" Y="1"/>' * 4))),
    "xml-two-vertices": ("xml", _xml(_OUTLINE.format('<Coordinate Order="0" X="2" Y="1"/>' * 2))),
    "xml-long-order": ("xml", _xml(_OUTLINE.format(f'<Coordinate Order="{"9" * 5000}" X="2" Y="1"/>' * 3))),
    "xml-million-elements": ("xml", _xml("<a b='1'/>" * 4_000_000)),
    "rle-negative": ("csv", "ImageId,EncodedPixels\nslide,-5 3 7 9\n"),
    "rle-overflow": ("csv", "ImageId,EncodedPixels\nslide,9223372036854775807 9223372036854775807\n"),
    "rle-past-end": ("csv", "ImageId,EncodedPixels\nslide,1 999999999999\n"),
    "rle-words": ("csv", "ImageId,EncodedPixels\nslide,one two\n"),
    "rle-odd": ("csv", "ImageId,EncodedPixels\nslide,1 2 3\n"),
    "rle-million-runs": ("csv", "ImageId,EncodedPixels\nslide," + "1 1 " * 6_000_000 + "\n"),
    "csv-quote-without-end": ("csv", 'ImageId,EncodedPixels\nslide,"1 2\n' + "x" * 10_000),
    "csv-not-utf-8": ("csv", b"ImageId,EncodedPixels\n\xff\xfe,1 2\n"),
    "csv-nul": ("csv", b"ImageId,EncodedPixels\nsli\0de,1 2\n"),
    "mask-claims-4-gigapixels": ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xfd\xe8\0\0\xfd\xe8\x08\0\0\0\0" + b"\x96\x93\x0d\xfe"),
    "mask-truncated": ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
}  # fmt: skip

_GOOD = "classes: [{name: gland}]\ndata: {stores: [STORE]}\nmpp: 1.0\npatch_px: 32\nmodel: {architecture: Unet, encoder: tu-mobilenetv3_small_050, weights: null}\n"
_RECIPES: dict[str, str | bytes] = {
    "billion-laughs": "a: &a [ha, ha]\nb: &b [*a, *a]\nc: &c [*b, *b]\nclasses: *c\n",
    "code": "classes: !!python/object/apply:os.system ['touch out-of-place']\n",
    "code-as-name": _GOOD.replace("encoder: tu", "encoder: __import__('os').system('x') #"),
    "encoder-that-leads-elsewhere": _GOOD.replace("tu-mobilenetv3_small_050", "../../etc/passwd"),
    "deep": "[" * 20_000,
    "deep-mapping": "".join(f"{' ' * depth}a:\n" for depth in range(900)) + " " * 900 + "a: 1\n",
    "hundred-thousand-keys": "".join(f"k{number}: 1\n" for number in range(80_000)),
    "long-number": f"mpp: {'9' * 5000}\n{_GOOD}".replace("mpp: 1.0\n", ""),
    "not-utf-8": b"classes: \xff\xfe\n",
    "nul": b"classes: \0\n",
    "binary": "classes: !!binary aGFsbG8=\n",
    "set": "classes: !!set {a, b}\n",
    "list-as-key": "? [1, 2]\n: 3\n",
    "tuple-as-key": "? !!python/tuple [1, 2]\n: 3\n",
    "timestamp": "classes: !!timestamp 2000-99-99\n",
    "wrong-number": "mpp: !!int abc\n",
    "nan-mpp": _GOOD.replace("1.0", ".nan"),
    "negative-mpp": _GOOD.replace("1.0", "-1.0"),
    "patch-of-2-31-px": _GOOD.replace("32", "2147483648"),
    "batch-of-2-31": _GOOD + "train: {batch_size: 2147483648}\n",
    "epochs-of-text": _GOOD + "train: {epochs: ten}\n",
    "store-elsewhere": _GOOD.replace("STORE", "../../../../nowhere.zarr"),
    "million-classes": _GOOD.replace("{name: gland}", ", ".join(f"{{name: c{n}}}" for n in range(20_000))),
    "too-large": "# " + "x" * (1 << 21) + "\n",
    "empty": "",
    "list": "[1, 2, 3]\n",
}  # fmt: skip
