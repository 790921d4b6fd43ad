"""Owns what scanners and programs write into TIFF descriptions: mpp, and which image is the slide.

Nothing else of a description is ever read: it may name the patient, the day and the operator.
"""

import math
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from wsi_seg.slides.resolution import UNKNOWN, Resolution, stated

_OME_UNITS = {
    "pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4,
    "dm": 1e5, "m": 1e6, "in": 25_400.0,
}  # fmt: skip
_IMAGEJ_UNITS = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "\\u00B5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "mm": 1e3, "cm": 1e4, "inch": 25_400.0,
}  # fmt: skip


def aperio_resolution(description: str) -> Resolution:
    """Read ``MPP = 0.499`` of an Aperio image description."""
    found = re.search(r"\|\s*MPP\s*=([^|\r\n]*)", description)  # all of it: 1e9 is not 1
    return stated(found.group(1), "aperio") if found else UNKNOWN


def ome_resolution(xml: str) -> Resolution:
    """Read PhysicalSizeX and PhysicalSizeY of the first image of an OME-XML document."""
    root = _parsed(xml)
    pixels = None if root is None else root.find(".//{*}Pixels")
    if pixels is None:
        return UNKNOWN
    sizes = []
    for axis in "XY":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if size is not None:
            sizes.append((size, _OME_UNITS.get(unit, 0.0)))
    return stated_mean(sizes, "ome")


def ome_planes(xml: str) -> int:
    """Count the planes that an OME-XML document claims: z, c and t of all its images."""
    root = _parsed(xml)
    planes = 0
    for pixels in [] if root is None else root.iterfind(".//{*}Pixels"):
        sizes = (pixels.get(f"Size{axis}", "1") for axis in "ZCT")
        planes += math.prod(int(size) if size.isdecimal() else 1 for size in sizes)
    return planes


def philips_resolution(xml: str) -> Resolution:
    """Read the finest DICOM_PIXEL_SPACING, in mm, of the scanned slide of a Philips document."""
    root = _parsed(xml)
    spacings: list[Resolution] = []
    for image in [] if root is None else root.iter("DataObject"):
        kind = image.find("Attribute[@Name='PIM_DP_IMAGE_TYPE']")
        if kind is None or (kind.text or "").strip() != "WSI":
            continue
        for entry in image.iterfind(".//Attribute[@Name='DICOM_PIXEL_SPACING']"):
            sizes = (entry.text or "").replace('"', " ").split()
            spacings.append(stated_mean([(size, 1000.0) for size in sizes], "philips"))
    known = [found for found in spacings if found.mpp is not None]
    return min(known, key=lambda found: found.mpp or 0, default=UNKNOWN)


def ventana_resolution(xmp: str) -> Resolution:
    """Read ``ScanRes="0.2325"`` of the iScan element of a Ventana slide."""
    found = re.search(r"<iScan\b[^>]*\bScanRes\s*=\s*[\"']([0-9.]+)[\"']", xmp)
    return stated(found.group(1), "ventana") if found else UNKNOWN


def openslide_resolution(description: str) -> Resolution:
    """Read ``openslide.mpp-x`` and ``-y``, which libvips copies into what it writes."""
    sizes = []
    for axis in "xy":
        found = re.search(
            rf"<name>openslide\.mpp-{axis}</name>\s*<value[^>]*>\s*([0-9.eE+-]+)\s*</value>",
            description,
        )
        if found:
            sizes.append((found.group(1), 1.0))
    return stated_mean(sizes, "openslide")


def imagej_resolution(description: str, px_per_unit: float | None) -> Resolution:
    """Read ``unit=micron`` of an ImageJ description; the tag XResolution counts px per unit."""
    found = re.search(r"^unit=(.*)$", description, re.MULTILINE)
    factor = _IMAGEJ_UNITS.get(found.group(1).strip()) if found else None
    if factor is None or not px_per_unit:
        return UNKNOWN
    return stated(str(factor / px_per_unit), "imagej")


@dataclass(frozen=True, slots=True)
class LeicaImage:
    """One image of a Leica slide: the whole glass (overview and label), or a part of it."""

    overview: bool
    resolution: Resolution


def leica_images(xml: str) -> tuple[LeicaImage, ...]:
    """List the images of a Leica SCN document, in the order of the file."""
    root = _parsed(xml)
    images = []
    for collection in [] if root is None else root.iterfind("{*}collection"):
        glass = _size(collection)
        for image in collection.iterfind("{*}image"):
            view, pixels = image.find("{*}view"), image.find("{*}pixels")
            if view is None or pixels is None:
                return ()
            (height, width), (rows, columns) = _size(view), _size(pixels)
            whole = height >= glass[0] and width >= glass[1]
            mean = (height / max(1, rows) + width / max(1, columns)) / 2000  # from nm
            images.append(LeicaImage(whole, stated(str(mean), "leica")))
    return tuple(images)


def stated_mean(sizes: list[tuple[str, float]], source: str) -> Resolution:
    """Take the mean of sizes with the micrometres of their units; unknown if one is no number."""
    try:
        found = [float(size) * unit for size, unit in sizes]
    except ValueError:
        return UNKNOWN
    if not found or min(found) <= 0:
        return UNKNOWN
    return stated(str(sum(found) / len(found)), source)


def _size(element: ElementTree.Element) -> tuple[int, int]:
    try:
        return int(element.get("sizeY", "0")), int(element.get("sizeX", "0"))
    except ValueError:
        return 0, 0


def _parsed(xml: str) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError):
        return None
