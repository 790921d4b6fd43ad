"""Micrometres per pixel from every place vendors put them; labels and overviews never taken."""

import re
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import open_slide
from wsi_seg.slides.vendors import (
    aperio_resolution,
    imagej_resolution,
    leica_images,
    ome_images,
    openslide_resolution,
    philips_resolution,
    ventana_resolution,
)
from wsi_seg.testing.conformance import check_slide

MARKER = 77
RAMP = (np.arange(96 * 128 * 3) * 37 % 251).astype(np.uint8).reshape(96, 128, 3)
OVERVIEW = np.full((64, 160, 3), MARKER, np.uint8)


def write(path, description, pages=(RAMP,), **options):
    """One tiled page after another; the description is that of the first."""
    with tifffile.TiffWriter(path) as tiff:
        for number, page in enumerate(pages):
            tiff.write(
                page, tile=(32, 32), photometric="rgb", metadata=None,
                description=description if number == 0 else None, **options,
            )  # fmt: skip
    return path


def philips(*spacings):
    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" '
        f'Group="0x0028">"{mm}" "{mm}"</Attribute></DataObject>'
        for mm in spacings
    )
    macro = (
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">MACROIMAGE'
        '</Attribute><Attribute Name="DICOM_PIXEL_SPACING">"0.00001" "0.00001"</Attribute>'
        "</DataObject>"
    )
    return (
        '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Attribute '
        f'Name="PIM_DP_SCANNED_IMAGES"><Array>{macro}<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute><Attribute '
        f'Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{levels}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )


def leica(parts=1):
    """Overview of the whole glass at IFD 0, then scanned areas of 250 nm per pixel."""
    area = (
        '<image name="image_{n}"><pixels sizeX="128" sizeY="96"><dimension sizeX="128" sizeY="96" '
        'r="0" ifd="{n}"/></pixels><view sizeX="32000" sizeY="24000" offsetX="{x}" offsetY="0"/>'
        "<scanSettings><objectiveSettings><objective>40</objective></objectiveSettings>"
        "<illuminationSettings><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image>"
    )
    return (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        '<collection sizeX="26000000" sizeY="76000000"><image name="overview"><pixels sizeX="160" '
        'sizeY="64"><dimension sizeX="160" sizeY="64" r="0" ifd="0"/></pixels><view '
        'sizeX="26000000" sizeY="76000000" offsetX="0" offsetY="0"/><scanSettings>'
        "<objectiveSettings><objective>1</objective></objectiveSettings><illuminationSettings>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image>"
        f"{''.join(area.format(n=n + 1, x=n * 40_000) for n in range(parts))}</collection></scn>"
    )


OME = "<OME><Image><Pixels PhysicalSize{}/></Image></OME>"


def ome(xml):
    (image,) = ome_images(xml)
    return image.resolution


VIPS = (
    '<?xml version="1.0"?><image><properties><property><name>openslide.mpp-x</name>'
    '<value type="VipsRefString">0.25</value></property><property><name>openslide.mpp-y</name>'
    '<value type="VipsRefString">0.252</value></property></properties></image>'
)


@pytest.mark.parametrize(
    ("found", "mpp", "source"),
    [
        (aperio_resolution("Aperio v1|AppMag = 20|MPP = 0.4990"), 0.499, "aperio"),
        (aperio_resolution("Aperio v1|AppMag = 20|MPP = ?"), None, "none"),
        (ome(OME.format('X="0.5" PhysicalSizeY="0.5"')), 0.5, "ome"),
        (ome(OME.format('X="5" PhysicalSizeXUnit="Å"')), 5e-4, "ome"),
        (ome(OME.format('X="5" PhysicalSizeXUnit="pixel"')), None, "none"),
        (ome(OME.format('X="0,25" PhysicalSizeY="0,25"')), 0.25, "ome"),
        (ome(OME.format('X="0.25" PhysicalSizeY="0.5"')), 0.375, "ome"),
        (philips_resolution(philips("0.000226", "0.000452")), 0.226, "philips"),
        (philips_resolution("<DataObject/>"), None, "none"),
        (ventana_resolution("<iScan Label='1' ScanRes='0.2325'/>"), 0.2325, "ventana"),
        (ventana_resolution("<iScan ScanRes='0,2325'/>"), 0.2325, "ventana"),
        (aperio_resolution("Aperio v1|AppMag = 20|MPP = 0,4990"), 0.499, "aperio"),
        (aperio_resolution("Aperio v1|AppMag = 20|MPP = 1,234.5"), None, "none"),
        (philips_resolution(philips("0,000226")), 0.226, "philips"),
        (ventana_resolution("<X ScanRes='0.2325'/>"), None, "none"),
        (openslide_resolution(VIPS), 0.251, "openslide"),
        (openslide_resolution(VIPS.replace(".", ",").replace(",mpp", ".mpp")), 0.251, "openslide"),
        (openslide_resolution("<image/>"), None, "none"),
        (imagej_resolution("ImageJ=1.53\nunit=micron\n", 4.0, 4.0), 0.25, "imagej"),
        (imagej_resolution("ImageJ=1.53\nunit=\\u00B5m\n", 4.0, 4.0), 0.25, "imagej"),
        (imagej_resolution("ImageJ=1.53\nunit=pixel\n", 4.0, 4.0), None, "none"),
        (leica_images(leica())[1].resolution, 0.25, "leica"),
    ],
)  # fmt: skip
def test_what_vendors_write(found, mpp, source):
    assert (found.mpp, found.source) == (pytest.approx(mpp), source)


def test_every_place_is_found_in_a_file(tmp_path):
    path = tmp_path / "a.tif"
    check_slide(write(path, VIPS), [RAMP], mpp=0.251)
    check_slide(write(path, "Aperio Image\r\nv|MPP = 0.5"), [RAMP], mpp=0.5)
    cm = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    check_slide(write(path, "any", **cm), [RAMP], mpp=0.25)
    xmp = b"<x:xmpmeta><iScan ScanRes='0.2325'/></x:xmpmeta>"
    check_slide(write(path, "any", extratags=[(700, "B", len(xmp), xmp, True)]), [RAMP], mpp=0.2325)
    tifffile.imwrite(path, RAMP, imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    check_slide(path, [RAMP], mpp=0.25)
    # The vendor's own metadata are trusted before the tags.
    check_slide(write(path, VIPS, **cm), [RAMP], mpp=0.251)


def test_hamamatsu_states_it_in_tags(tmp_path):
    tags: list[tuple[object, ...]] = [(65420, "I", 1, 1, True), (65421, "f", 1, 20.0, True)]
    page: dict[str, Any] = {
        "resolution": (21_900, 21_900),
        "resolutionunit": "CENTIMETER",
        "extratags": tags,
    }
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        make = [(271, "s", 0, "Hamamatsu", True)]
        for pixels, lens in ((RAMP, 20.0), (OVERVIEW, -1.0)):
            tags[1:] = [(65421, "f", 1, lens, True), *make]
            tiff.write(pixels, rowsperstrip=8, photometric="rgb", metadata=None, **page)
    check_slide(tmp_path / "a.tif", [RAMP], mpp=10_000 / 21_900)
    assert open_slide(tmp_path / "a.tif").format == "ndpi"


def test_philips_levels_are_without_their_padding(tmp_path):
    full = RAMP[:, :96]
    small = np.zeros((64, 64, 3), np.uint8)
    small[:48, :48] = full[::2, ::2]
    path = write(
        tmp_path / "a.tiff", philips("0.00025", "0.0005"), [full, small],
        software="Philips DP v1.0",
    )  # fmt: skip
    check_slide(path, [full, small[:48, :48]], mpp=0.25)
    slide = open_slide(path)
    assert (slide.format, slide.pyramid.downsample(1)) == ("philips", 2.0)


def test_the_overview_of_a_leica_slide_is_never_taken(tmp_path):
    path = write(tmp_path / "a.scn", leica(), [OVERVIEW, RAMP])
    check_slide(path, [RAMP], mpp=0.25)
    assert open_slide(path).format == "scn"
    # Two scanned areas are put in their places by OpenSlide.
    two = write(tmp_path / "b.scn", leica(2), [OVERVIEW, RAMP, RAMP])
    slide = open_slide(two)
    assert slide.pyramid.extent == Extent(height=304_000, width=104_000)  # of the whole glass
    for x in (0, 160):
        found = slide.read(Region(level=0, y=0, x=x, height=96, width=128))
        assert np.array_equal(found, RAMP)


ASSOCIATED = {"label": np.full((112, 96, 3), MARKER, np.uint8), "macro": OVERVIEW}
TILES: dict[str, Any] = {"tile": (32, 32), "photometric": "rgb", "metadata": None}
STRIPS: dict[str, Any] = {"rowsperstrip": 16, "photometric": "rgb", "metadata": None}


def write_pages(path, *pages):
    with tifffile.TiffWriter(path) as tiff:
        for pixels, options in pages:
            tiff.write(pixels, **options)
    return path


def in_both_orders(first, *others):
    """The pictures next to the slide in front of it, and behind it."""
    return [(*others, first), (first, *others)]


@pytest.mark.parametrize("layout", [TILES, STRIPS], ids=["tiles", "strips"])
@pytest.mark.parametrize("mark", [{}, {"subfiletype": 1}, {"subfiletype": 9}], ids=str)
def test_labels_and_macros_of_aperio_in_any_place(tmp_path, layout, mark):
    head = "Aperio Image Library v12.0.15\r\n"
    slide = (RAMP, TILES | {"description": f"{head}128x96 (32x32)|AppMag = 20|MPP = 0.5"})
    others = [
        (ASSOCIATED[name], layout | mark | {"description": f"{head}{name} 96x112"})
        for name in ("label", "macro")
    ]
    for pages in in_both_orders(slide, *others):
        check_slide(write_pages(tmp_path / "a.svs", *pages), [RAMP], mpp=0.5)


@pytest.mark.parametrize("reference", ["", "macro dissection, label 7"])
def test_macros_and_maps_of_hamamatsu_in_any_place(tmp_path, reference):
    def page(lens):
        named = [(65427, "s", 0, reference, True)] if reference else []
        tags = [(65420, "I", 1, 1, True), (65421, "f", 1, lens, True), *named]
        return STRIPS | {
            "extratags": [*tags, (271, "s", 0, "Hamamatsu", True)],
            "resolution": (20_000, 20_000),
            "resolutionunit": "CENTIMETER",
        }

    small = np.ascontiguousarray(RAMP[::2, ::2])
    levels = (RAMP, page(20.0)), (small, page(10.0))
    others = (OVERVIEW, page(-1.0)), (OVERVIEW[..., 0], page(-2.0) | {"photometric": "minisblack"})
    for pages in ((*others, *levels), (*levels, *others), (others[0], *levels, others[1])):
        path = write_pages(tmp_path / "a.tif", *pages)
        check_slide(path, [RAMP, small], mpp=0.5)
        assert open_slide(path).format == "ndpi"


def test_overviews_of_leica_in_any_place(tmp_path):
    """By the order of the images in the XML, and by that of the pages in the file."""
    xml = leica()
    start, overview, area, end = re.split(r"(?=<image)|(?=</collection)", xml)
    behind = "".join((start, area, overview, end))
    check_slide(write(tmp_path / "a.scn", behind, [OVERVIEW, RAMP]), [RAMP], mpp=0.25)
    for text in (xml, behind):
        swapped = text.replace('ifd="0"', 'ifd="x"').replace('ifd="1"', 'ifd="0"')
        swapped = swapped.replace('ifd="x"', 'ifd="1"')
        check_slide(write(tmp_path / "a.scn", swapped, [RAMP, OVERVIEW]), [RAMP], mpp=0.25)


@pytest.mark.parametrize("layout", [TILES, STRIPS], ids=["tiles", "strips"])
def test_labels_and_macros_of_philips_in_any_place(tmp_path, layout):
    small = np.ascontiguousarray(RAMP[::2, ::2])
    made = {"software": "Philips DP v1.0"}
    slide = (RAMP, TILES | made | {"description": philips("0.00025", "0.0005")})
    level = (small, TILES | made | {"subfiletype": 1})
    others = [
        (ASSOCIATED[name.lower()], layout | made | {"description": name, "subfiletype": 1})
        for name in ("Label", "Macro")
    ]
    for pages in ((slide, level, *others), (slide, *others, level)):
        check_slide(write_pages(tmp_path / "a.tiff", *pages), [RAMP, small], mpp=0.25)
    check_slide(write_pages(tmp_path / "a.tiff", *others, slide, level), [RAMP, small])


def test_decimal_commas_of_philips(tmp_path):
    small = np.ascontiguousarray(RAMP[::2, ::2])
    path = write(tmp_path / "a.tiff", philips("0,00025", "0,0005"), [RAMP, small],
                 software="Philips DP v1.0")  # fmt: skip
    check_slide(path, [RAMP, small], mpp=0.25)
