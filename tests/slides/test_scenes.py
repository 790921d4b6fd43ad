"""Which image of a file is the slide: by what files say, never by their order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tests.makers.omezarrs import write_ome_zarr
from tests.slides.checks import check_scenes
from tests.slides.tags import Tags
from wsi_seg.errors import SlideError
from wsi_seg.geometry import Extent
from wsi_seg.slides import open_slide
from wsi_seg.slides.scenes import Scene, main_scene
from wsi_seg.testing.conformance import check_slide

FULL = (np.arange(256 * 320 * 3) * 37 % 251).astype(np.uint8).reshape(256, 320, 3)
LEVELS = [np.ascontiguousarray(FULL[::step, ::step]) for step in (1, 2, 4)]
OTHER = np.ascontiguousarray(FULL[::-1, :200])
LABEL = np.full((96, 112, 3), 77, np.uint8)
PLAIN: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "metadata": None}
TILED: dict[str, Any] = {"tile": (64, 64), **PLAIN}


def resolution(mpp):
    return {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": "CENTIMETER"}


def write(path, *pages, **options):
    """One page after another: pixels, and what is special about it."""
    with tifffile.TiffWriter(path, **options) as tiff:
        for pixels, more in pages:
            tiff.write(pixels, **{**TILED, **more})
    return path


MARKED: dict[str, Any] = {"subfiletype": 1}
STRIPS = {"tile": None, "rowsperstrip": 16}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_levels_may_come_in_any_order(tmp_path, order, marked, bigtiff):
    pages = [(LEVELS[n], resolution(0.5 * 2**n) | (MARKED if marked and n else {})) for n in order]
    path = write(tmp_path / "a.tif", *pages, bigtiff=bigtiff)
    check_slide(path, LEVELS, mpp=0.5)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "label",
    [
        MARKED,
        MARKED | STRIPS,
        {"subfiletype": 9} | STRIPS,
        {"description": "Label"},
        {"description": "macro image of the glass"} | STRIPS,
        {"extratags": [(285, "s", 0, "Thumbnail", True)]},
        STRIPS,
    ],
    ids=str,
)
def test_a_label_never_becomes_the_slide(tmp_path, label, first):
    pages = [(LEVELS[0], {}), (LEVELS[1], MARKED)]
    associated = [(LABEL, label)]
    path = write(tmp_path / "a.tif", *(associated + pages if first else pages + associated))
    check_slide(path, LEVELS[:2])


def test_a_thumbnail_in_front_is_not_the_slide(tmp_path):
    thumb = np.ascontiguousarray(FULL[::8, ::8])
    path = write(tmp_path / "a.tif", (thumb, STRIPS), (LEVELS[0], {}), (LEVELS[2], MARKED))
    check_slide(path, [LEVELS[0], LEVELS[2]])


def test_an_aperio_slide_behind_its_label(tmp_path):
    head = "Aperio Image Library v12\r\n"
    path = write(
        tmp_path / "a.svs",
        (LABEL, STRIPS | {"description": f"{head}label 112x96"}),
        (LEVELS[0], {"description": f"{head}320x256 (64x64)|AppMag = 20|MPP = 0.5"}),
        (LEVELS[1], {"description": f"{head}320x256 (64x64) -> 160x128|MPP = 0.5"}),
    )
    check_slide(path, LEVELS[:2], mpp=0.5)


def test_nothing_but_labels_is_no_slide(tmp_path):
    path = write(
        tmp_path / "a.tif", (LABEL, {"description": "label"}), (OTHER, {"description": "macro"})
    )
    with pytest.raises(SlideError, match="holds no slide, only its macro and label"):
        open_slide(path)


def test_what_is_left_out_without_being_called_so_is_named(tmp_path, caplog):
    tiny = np.zeros((40, 32, 3), np.uint8)
    for associated in (STRIPS, {}):
        caplog.clear()
        open_slide(write(tmp_path / "a.tif", (tiny, associated), (FULL, {})))
        assert "ignored an image of 32 x 40 px" in caplog.text


@pytest.mark.parametrize("second", [OTHER, np.ascontiguousarray(FULL[:, ::-1])])
def test_several_pages_that_may_be_the_slide(tmp_path, second):
    path = write(tmp_path / "a.tif", (FULL, {}), (second, {}))
    check_scenes(path, {"?first": [FULL], "?second": [second]})


def test_scenes_of_one_shape_but_not_of_one_field(tmp_path):
    half = np.ascontiguousarray(FULL[:160, :200][::-1])  # 5:4 as well
    path = write(tmp_path / "a.tif", (FULL, resolution(0.5)), (half, resolution(0.4)))
    check_scenes(path, {"?a": [FULL], "?b": [half]})


def test_scenes_with_levels_of_their_own(tmp_path):
    second = np.ascontiguousarray(FULL[::-1])
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for pixels in (FULL, second):
            tiff.write(pixels, **TILED)
            tiff.write(np.ascontiguousarray(pixels[::2, ::2]), **TILED, **MARKED)
    check_scenes(path, {"?a": [FULL, FULL[::2, ::2]], "?b": [second, second[::2, ::2]]})


def write_ome(path, *images):
    """Images with a name, and micrometres per pixel or nothing."""
    with tifffile.TiffWriter(path) as tiff:
        for name, pixels, mpp in images:
            size = {} if mpp is None else {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            metadata = {"axes": "YXS", "Name": name, **size}
            tiff.write(pixels, photometric="rgb", tile=(64, 64), metadata=metadata)
    return path


def test_ome_images_are_distinguished_by_their_names(tmp_path):
    path = write_ome(
        tmp_path / "a.ome.tif",
        ("label image", LABEL, None), ("macro image", OTHER, None), ("Slide", FULL, 0.5),
        ("Thumbnail", LEVELS[1], None),
    )  # fmt: skip
    check_slide(path, [FULL], mpp=0.5)
    path = write_ome(tmp_path / "b.ome.tif", ("Low", LEVELS[2], 2.0), ("High", FULL, 0.5))
    check_slide(path, [FULL], mpp=0.5)


def test_ome_scenes(tmp_path):
    path = write_ome(
        tmp_path / "a.ome.tif", ("Scene 1", OTHER, 0.5), ("Scene 2", FULL, 0.25),
        ("macro", LABEL, None),
    )  # fmt: skip
    check_scenes(path, {"Scene 1": [OTHER], "Scene 2": [FULL]})
    assert open_slide(path, scene="2").pyramid.mpp == 0.25
    assert open_slide(path, scene="Scene 1").pyramid.mpp == 0.5


def write_bioformats(root, *images):
    """As bioformats2raw writes it: a folder for each image, and their names in OME-XML."""
    zarr.open_group(root, mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    described = ""
    for number, (name, pixels) in enumerate(images):
        write_ome_zarr(root / str(number), [pixels], version="0.4")
        described += f'<Image Name="{name}"><Pixels SizeX="1"/></Image>'
    (root / "OME").mkdir()
    (root / "OME" / "METADATA.ome.xml").write_text(f"<OME>{described}</OME>")
    return root


def test_images_of_bioformats2raw(tmp_path):
    root = write_bioformats(tmp_path / "a.zarr", ("label image", LABEL), ("a.svs #1", FULL))
    check_slide(root, [FULL])
    root = write_bioformats(tmp_path / "b.zarr", ("one", FULL), ("two", OTHER), ("macro", LABEL))
    check_scenes(root, {"one": [FULL], "two": [OTHER]})


def test_several_multiscales_of_one_group(tmp_path):
    root = tmp_path / "a.zarr"
    write_ome_zarr(root, [FULL, OTHER])
    document = json.loads((root / "zarr.json").read_text())
    (scales,) = document["attributes"]["ome"]["multiscales"]
    document["attributes"]["ome"]["multiscales"] = [
        {**scales, "name": name, "datasets": [dataset]}
        for name, dataset in zip(("east", "west"), scales["datasets"], strict=True)
    ]
    (root / "zarr.json").write_text(json.dumps(document))
    check_scenes(root, {"east": [FULL], "west": [OTHER]})


def test_files_of_one_image_have_the_scene_1(tmp_path):
    path = write(tmp_path / "a.tif", (FULL, {}))
    assert np.array_equal(open_slide(path, scene="1").read(whole(FULL)), FULL)
    with pytest.raises(SlideError, match="--scene 2"):
        open_slide(path, scene="2")


def whole(pixels):
    from wsi_seg.geometry import Region

    return Region(level=0, y=0, x=0, height=pixels.shape[0], width=pixels.shape[1])


def test_reductions_are_recognised_by_shape_and_field():
    full = Scene("", Extent(height=1001, width=1500), 0.5)
    path = Path("a.tif")
    for small, taken in (
        (Scene("", Extent(height=500, width=750), 1.0), True),
        (Scene("", Extent(height=501, width=750), None), True),
        (Scene("", Extent(height=501, width=750), 0.5), False),
        (Scene("", Extent(height=700, width=750), 1.0), False),
    ):
        if taken:
            assert main_scene(path, [small, full]) == (1, None)
        else:
            with pytest.raises(SlideError, match="2 images"):
                main_scene(path, [small, full])


def test_marks_that_all_pages_have_tell_nothing(tmp_path):
    path = write(tmp_path / "a.tif", *((level, MARKED) for level in LEVELS))
    check_slide(path, LEVELS)
    with Tags(path) as tags:
        tags.put(0, 254, [0])
    check_slide(path, LEVELS)
