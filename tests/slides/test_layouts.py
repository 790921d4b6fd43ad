"""Axes, planes, channels and alpha: colours are joined, and what is not a colour is refused."""

import json
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from tests.makers.omezarrs import write_ome_zarr
from wsi_seg.errors import UnsupportedSlideError
from wsi_seg.slides import open_slide
from wsi_seg.slides.channels import are_colours
from wsi_seg.testing.conformance import check_slide

RGB = (np.arange(90 * 110 * 3) * 37 % 251).astype(np.uint8).reshape(90, 110, 3)
PLANES = np.ascontiguousarray(np.moveaxis(RGB, 2, 0))
TILED: dict[str, Any] = {"tile": (32, 32), "compression": "zlib"}
GREY: dict[str, Any] = {"photometric": "minisblack"}


@pytest.mark.parametrize("options", [{}, TILED, {"tile": (32, 32)}, {"rowsperstrip": 16}], ids=str)
@pytest.mark.parametrize(
    "shape",
    [(3, 90, 110), (1, 1, 3, 90, 110), (1, 3, 1, 90, 110), (3, 1, 1, 90, 110), (1, 3, 90, 110, 1)],
)
def test_three_grey_pages_are_colours(tmp_path, shape, options, caplog):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES.reshape(shape), **GREY, **options)
    check_slide(path, [RGB])
    assert "its 3 unnamed channels are read as red, green and blue" in caplog.text


def test_planes_behind_a_single_page(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES, **GREY, metadata={"axes": "CYX", "truncate": True}, ome=False)
    tifffile.imwrite(tmp_path / "b.tif", PLANES, **GREY, metadata={"truncate": True})
    for file in (path, tmp_path / "b.tif"):
        check_slide(file, [RGB])


@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_without_any_description(tmp_path, bigtiff):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        for step in (1, 2):
            for plane in PLANES:
                tiff.write(
                    plane[::step, ::step], **GREY, **TILED, metadata=None,
                    subfiletype=1 if step > 1 else 0,
                )  # fmt: skip
    check_slide(path, [RGB, RGB[::2, ::2]])


@pytest.mark.parametrize("axes", ["CYX", "TZCYX", "ZCYX"])
def test_hyperstacks_of_imagej(tmp_path, axes):
    path = tmp_path / "a.tif"
    shape = tuple({"C": 3, "Y": 90, "X": 110}.get(axis, 1) for axis in axes)
    tifffile.imwrite(path, PLANES.reshape(shape), imagej=True, metadata={"axes": axes})
    check_slide(path, [RGB])
    tifffile.imwrite(path, RGB, imagej=True)
    check_slide(path, [RGB])


@pytest.mark.parametrize("names", [None, ["Red", "Green", "Blue"], ["R", "G", "B"]])
def test_ome_channels_that_are_colours(tmp_path, names):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "CYX"} | ({"Channel": {"Name": names}} if names else {})
    tifffile.imwrite(path, PLANES, **GREY, **TILED, metadata=metadata)
    check_slide(path, [RGB])


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_samples_of_one_page(tmp_path, separate, photometric, shape):
    path = tmp_path / "a.tif"
    pixels = PLANES if separate else RGB
    extra: dict[str, Any] = {} if photometric == "rgb" else {"extrasamples": ["unspecified"] * 2}
    tifffile.imwrite(
        path, pixels.reshape(shape + pixels.shape), photometric=photometric,
        planarconfig="separate" if separate else "contig", **extra, **TILED,
    )  # fmt: skip
    check_slide(path, [RGB])


def refuse(path, *words):
    with pytest.raises(UnsupportedSlideError) as caught:
        open_slide(path)
    message = str(caught.value)
    assert path.name in message
    assert all(word in message for word in words), message


DEEP = PLANES.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("pixels", "options", "word"),
    [
        (np.moveaxis(np.stack([DEEP[0]] * 5), 0, 2), {"planarconfig": "contig"}, "5 channels"),
        (np.stack([DEEP[0]] * 5), {"planarconfig": "separate"}, "5 channels"),
        (np.moveaxis(np.stack([PLANES[0]] * 4), 0, 2), {"planarconfig": "contig"}, "4 channels"),
        (np.moveaxis(np.stack([PLANES[0]] * 2), 0, 2), {"planarconfig": "contig"}, "2 channels"),
        (DEEP, {"metadata": {"axes": "CYX"}}, "3 channels"),
        (np.stack([DEEP[0]] * 4), {"metadata": {"axes": "CYX"}}, "4 channels"),
        (DEEP, {"metadata": None}, "3 channels"),
        (np.stack([PLANES[0]] * 5), {"metadata": None}, "5 images"),
        (DEEP, {"imagej": True, "metadata": {"axes": "CYX"}}, "3 channels"),
        (PLANES, {"imagej": True, "metadata": {"axes": "ZYX"}}, "axes ZYX"),
        (PLANES, {"imagej": True, "metadata": {"axes": "TYX"}}, "axes TYX"),
    ],
)
def test_more_channels_than_colours_are_refused(tmp_path, pixels, options, word):
    samples = pixels.shape[2] if options.get("planarconfig") == "contig" else len(pixels)
    extra: dict[str, Any] = {}
    if "planarconfig" in options:
        extra["extrasamples"] = ["unspecified"] * (samples - 1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **GREY, **extra, **options)
    refuse(path, word)


def test_named_channels_are_refused_by_their_names(tmp_path):
    names = ["DAPI", "CD3", "CD8"]
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PLANES, **GREY, metadata={"axes": "CYX", "Channel": {"Name": names}})
    refuse(path, *names)
    channels = [{"label": name, "color": "FF0000"} for name in (*names, "PanCK")]
    for count in (3, 4):
        root = tmp_path / f"{count}.zarr"
        pixels = np.dstack([RGB, RGB[..., :1]])[..., :count]
        omero = {"omero": {"channels": channels[:count]}}
        write_ome_zarr(root, [pixels], version="0.4", attributes=omero)
        refuse(root, *names[:count])
        write_ome_zarr(root, [pixels])
        document = json.loads((root / "zarr.json").read_text())
        document["attributes"]["ome"] |= omero
        (root / "zarr.json").write_text(json.dumps(document))
        refuse(root, *names[:count])


def test_colours_of_channels_without_names(tmp_path):
    for colours, taken in (
        (("FF0000", "00FF00", "0000FF"), True),
        (("0000FF", "00FF00", "FF0000"), False),
        (("FFFFFF", "FFFFFF", "FFFFFF"), True),
    ):
        root = tmp_path / f"{colours[0]}.zarr"
        omero = {"channels": [{"color": colour} for colour in colours]}
        write_ome_zarr(root, [RGB], version="0.4", attributes={"omero": omero})
        if taken:
            check_slide(root, [RGB])
        else:
            refuse(root, "0000FF, 00FF00, FF0000")


def test_names_of_colours():
    assert are_colours(["red", "GREEN", " b "])
    assert not are_colours(["blue", "green", "red"])
    assert not are_colours(["red", "green"])


def clear(pixels, alpha):
    return np.where(alpha[..., None] == 0, 255, pixels).astype(np.uint8)


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("deep", [True, False])
def test_clear_pixels_are_white(tmp_path, kind, separate, deep):
    path = tmp_path / "a.tif"
    rgba = np.dstack([RGB, RGB[..., 0]])
    stored = rgba.astype(np.uint16) * 257 if deep else rgba
    tifffile.imwrite(
        path, np.moveaxis(stored, 2, 0) if separate else stored, photometric="rgb",
        planarconfig="separate" if separate else "contig", extrasamples=[kind], **TILED,
        metadata=None,
    )  # fmt: skip
    check_slide(path, [clear(RGB, RGB[..., 0])])
    la = np.ascontiguousarray(rgba[..., 2:])
    tifffile.imwrite(path, la, **GREY, extrasamples=[kind], planarconfig="contig", metadata=None)
    check_slide(path, [clear(np.repeat(RGB[..., 2:], 3, 2), RGB[..., 0])])


def test_a_fourth_sample_that_is_not_alpha_is_reported(tmp_path, caplog):
    path = tmp_path / "a.tif"
    rgbx = np.dstack([RGB, RGB[..., :1]])
    tifffile.imwrite(path, rgbx, photometric="rgb", extrasamples=["unspecified"], metadata=None)
    check_slide(path, [RGB])
    assert "ignored a fourth sample" in caplog.text
    six = np.dstack([rgbx, RGB[..., :2]])
    tifffile.imwrite(path, six, photometric="rgb", extrasamples=["unspecified"] * 3, metadata=None)
    refuse(path, "6 samples")


def test_the_first_well_of_a_plate_is_named(tmp_path):
    plate = tmp_path / "plate.zarr"
    group = zarr.open_group(plate, mode="w", zarr_format=2)
    group.attrs["plate"] = {"wells": [{"path": "B/03"}, {"path": "A/1"}], "version": "0.4"}
    group.create_group("B/03").attrs["well"] = {"images": [{"path": "7"}]}
    write_ome_zarr(plate / "B/03/7", [RGB], version="0.4")
    refuse(plate, "plate", "B/03/7")
    refuse(plate / "B", "without multiscales")
    refuse(plate / "B/03", "well", "B/03/7")
    check_slide(plate / "B/03/7", [RGB])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_that_states_no_version(tmp_path, version):
    root = tmp_path / "a.zarr"
    write_ome_zarr(root, [RGB], version=version)
    file = root / (".zattrs" if version == "0.4" else "zarr.json")
    document = json.loads(file.read_text())
    ome = document["multiscales"][0] if version == "0.4" else document["attributes"]["ome"]
    del ome["version"]
    file.write_text(json.dumps(document))
    check_slide(root, [RGB])
    scales = ome if version == "0.4" else ome["multiscales"][0]
    scales["axes"] = ["c", "y", "x"]
    file.write_text(json.dumps(document))
    refuse(root, "without a version")


@pytest.mark.parametrize(
    ("name", "head", "word"),
    [
        ("a.czi", b"ZISRAWFILE", "CZI"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("a.pdf", b"%PDF-1.7", "PDF"),
        ("a.zip", b"PK\x03\x04", "ZIP archive"),
        ("a.ozx", b"PK\x03\x04", "zipped OME-Zarr"),
        ("a.tif.gz", b"\x1f\x8b\x08", "gzip"),
    ],
)
def test_known_things_that_are_no_slides(tmp_path, name, head, word):
    path = tmp_path / name
    path.write_bytes(head + bytes(200))
    refuse(path, word)


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.ozx", "a.zip"])
def test_a_zipped_ome_zarr_is_named(tmp_path, name):
    import shutil

    write_ome_zarr(tmp_path / "a.zarr", [RGB])
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "a.zarr")
    refuse((tmp_path / "packed.zip").rename(tmp_path / name), "zipped OME-Zarr", "unzip")


def test_a_picture_of_two_samples(tmp_path):
    la = np.ascontiguousarray(RGB[..., :2])
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(la))
    check_slide(tmp_path / "a.png", [clear(np.repeat(la[..., :1], 3, 2), la[..., 1])])
