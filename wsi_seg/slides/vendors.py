"""Owns parsing the vendor metadata in TIFF descriptions: mpp, and which image is the slide.

Nothing else in a description is read: it may name the patient, the date and the operator.
"""

import math
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from wsi_seg.slides.resolution import (
    UNKNOWN,
    Resolution,
    micrometres,
    parse_um,
    pixel_resolution,
    spacing_resolution,
)

# Associated images are never the slide; a label may show the patient's name.
_ASSOCIATED = re.compile(r"(?<![a-z])(label|macro|thumb|thumbnail|overview|preview)(?![a-z])", re.I)


def aperio_resolution(description: str) -> Resolution:
    """Read ``MPP = 0.499`` of an Aperio image description."""
    found = re.search(r"\|\s*MPP\s*=([^|\r\n]*)", description)  # the whole field: 1e9 is not 1
    return pixel_resolution(parse_um(found.group(1)), None, "aperio") if found else UNKNOWN


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image of an OME-XML document.

    Parameters
    ----------
    name
        Name in the file.
    resolution
        Micrometres per pixel.
    channels
        Names of the channels; empty strings for channels without a name.
    samples
        Samples per pixel of the first channel: 3 where RGB is one channel.
    """

    name: str
    resolution: Resolution
    channels: tuple[str, ...]
    samples: int


def ome_images(xml: str) -> tuple[OmeImage, ...]:
    """List the images of an OME-XML document in order; empty if the text is not XML."""
    root = _parsed(xml)
    found = []
    for image in [] if root is None else root.iterfind(".//{*}Image"):
        pixels = image.find("{*}Pixels")
        if pixels is None:
            continue
        x, y = (_ome_size(pixels, axis) for axis in "XY")
        channels = pixels.findall("{*}Channel")
        names = tuple(channel.get("Name", "") for channel in channels)
        samples = channels[0].get("SamplesPerPixel", "1") if channels else "1"
        count = int(samples) if samples.isdecimal() else 1
        found.append(OmeImage(image.get("Name", ""), pixel_resolution(x, y, "ome"), names, count))
    return tuple(found)


def _ome_size(pixels: ElementTree.Element, axis: str) -> float | None:
    unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
    return parse_um(pixels.get(f"PhysicalSize{axis}"), unit)


def ome_planes(xml: str) -> int:
    """Count the planes that an OME-XML document declares: z, c and t of all its images."""
    root = _parsed(xml)
    planes = 0
    for pixels in [] if root is None else root.iterfind(".//{*}Pixels"):
        sizes = (pixels.get(f"Size{axis}", "1") for axis in "ZCT")
        planes += math.prod(int(size) if size.isdecimal() else 1 for size in sizes)
    return planes


def philips_resolution(xml: str) -> Resolution:
    """Read the finest DICOM_PIXEL_SPACING (mm) of the WSI image in Philips XML."""
    root = _parsed(xml)
    spacings: list[Resolution] = []
    for image in [] if root is None else root.iter("DataObject"):
        kind = image.find("Attribute[@Name='PIM_DP_IMAGE_TYPE']")
        if kind is None or (kind.text or "").strip() != "WSI":
            continue
        for entry in image.iterfind(".//Attribute[@Name='DICOM_PIXEL_SPACING']"):
            sizes = (entry.text or "").replace('"', " ").split()
            spacings.append(spacing_resolution(sizes, "philips"))
    known = [found for found in spacings if found.mpp is not None]
    return min(known, key=lambda found: found.mpp or 0, default=UNKNOWN)


def ventana_resolution(xmp: str) -> Resolution:
    """Read ``ScanRes="0.2325"`` from the iScan element of a Ventana slide."""
    found = re.search(r"<iScan\b[^>]*\bScanRes\s*=\s*[\"']([0-9.,]+)[\"']", xmp)
    return pixel_resolution(parse_um(found.group(1)), None, "ventana") if found else UNKNOWN


def openslide_resolution(description: str) -> Resolution:
    """Read ``openslide.mpp-x`` and ``-y``, which libvips copies to the files it writes."""
    x, y = (
        re.search(
            rf"<name>openslide\.mpp-{axis}</name>\s*<value[^>]*>\s*([0-9.,eE+-]+)\s*</value>",
            description,
        )
        for axis in "xy"
    )
    return pixel_resolution(x and parse_um(x.group(1)), y and parse_um(y.group(1)), "openslide")


def imagej_resolution(description: str, x: float | None, y: float | None) -> Resolution:
    """Read ``unit=micron`` from an ImageJ description; x and y are pixels per unit."""
    found = re.search(r"^unit=(.*)$", description, re.MULTILINE)
    unit = micrometres(found.group(1)) if found else math.nan
    return pixel_resolution(unit / x if x else None, unit / y if y else None, "imagej")


def associated_kind(text: str) -> str:
    """Return the kind of associated image (label, macro ...) that a text names; or an empty string.

    In a description with fields, such as Aperio's, only the text before the first field counts.
    """
    if text.lstrip().startswith("<"):
        return ""
    found = _ASSOCIATED.search(text.partition("|")[0][:500])
    return found.group(1).lower() if found else ""


@dataclass(frozen=True, slots=True)
class LeicaImage:
    """One image of a Leica slide: the whole glass (overview and label) or a scanned area."""

    overview: bool
    resolution: Resolution


def leica_images(xml: str) -> tuple[LeicaImage, ...]:
    """List the images of a Leica SCN document in file order."""
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
            y, x = height / max(1, rows) / 1000, width / max(1, columns) / 1000  # from nm
            images.append(LeicaImage(whole, pixel_resolution(x, y, "leica")))
    return tuple(images)


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
