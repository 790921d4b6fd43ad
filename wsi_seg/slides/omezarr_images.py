"""Owns choosing the image of an OME-Zarr folder that is the slide, from metadata only.

A folder may hold several images: those of a bioformats2raw layout, or the entries of one group's
``multiscales``. Plates, wells, labels and collections are not images; messages name what they are.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.files.json_text import parse_json
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits
from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.resolution import micrometres, pixel_resolution
from wsi_seg.slides.scenes import Scene, main_scene
from wsi_seg.slides.vendors import OmeImage, associated_kind, ome_images

_VERSIONS = {"0.4", "0.5"}
_MARKERS = ("zarr.json", ".zgroup", ".zarray")
_BIOFORMATS = "bioformats2raw.layout"
_MAX_IMAGES = 1000


@dataclass(frozen=True, slots=True)
class OmeZarrImage:
    """One OME-Zarr image.

    Parameters
    ----------
    group
        Folder of its Zarr group.
    version
        OME-Zarr version, ``0.4`` or ``0.5``.
    scales
        Its entry in ``multiscales``.
    channels, colours
        Names of the channels, and their colours as hex digits; empty strings where not stated.
    """

    group: Path
    version: str
    scales: dict[str, Any]
    channels: tuple[str, ...]
    colours: tuple[str, ...]


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a Zarr group or array."""
    return any((folder / name).is_file() for name in _MARKERS)


def is_ome_zarr(folder: Path) -> bool:
    """Return whether a Zarr group is an OME-Zarr image of any version."""
    try:
        attributes = _attributes(folder)
    except SlideError:
        return False
    return "multiscales" in attributes or _BIOFORMATS in attributes


def describe_group(folder: Path) -> str:
    """Explain why a Zarr group is not an OME-Zarr image, and suggest the path to use instead."""
    try:
        attributes = _attributes(folder)
        if "plate" in attributes:
            wells = attributes["plate"]["wells"]
            well = folder / wells[0]["path"]
            image = well / _attributes(well)["well"]["images"][0]["path"]
            return f"an OME-Zarr plate of {len(wells)} wells; name one image, such as {image}"
        if "well" in attributes:
            image = folder / attributes["well"]["images"][0]["path"]
            return f"a well of an OME-Zarr plate; name one image, such as {image}"
        if "labels" in attributes:
            return "a group of OME-Zarr labels; name the image above it"
    except (SlideError, LookupError, TypeError):
        pass
    return "a Zarr group that is not an image"


def find_image(path: Path, scene: str | None) -> tuple[OmeZarrImage, int | None]:
    """Choose the image of a folder that is the slide; see `wsi_seg.slides.scenes`.

    Parameters
    ----------
    path
        The folder.
    scene
        Number (from 1) or name of the image to read, if there are several.

    Returns
    -------
    OmeZarrImage
        The image.
    int or None
        Its number, if one was requested.

    Raises
    ------
    SlideError
        If the metadata are damaged, or there is no such image.
    UnsupportedSlideError
        If the folder is not an image, or holds several and ``scene`` must choose one.
    """
    groups = _groups(path) if _BIOFORMATS in _attributes(path) else [path]
    described = _described(path, len(groups)) or [None] * len(groups)
    found = [
        (image, about)
        for group, about in zip(groups, described, strict=True)
        for image in _images(group)
    ]
    if len(found) == 1 and scene is None:
        return found[0][0], None
    index, number = main_scene(path, [_scene(image, about) for image, about in found], scene)
    return found[index][0], number


def _groups(path: Path) -> list[Path]:
    """Return the groups of a bioformats2raw layout in numerical order."""
    found = [child for child in path.iterdir() if child.name.isdecimal() and is_zarr(child)]
    if not found:
        raise SlideError(f"{path}: has the bioformats2raw layout, but holds no image")
    if len(found) > _MAX_IMAGES:
        raise SlideError(f"{path}: got {len(found)} images; expected a few")
    return sorted(found, key=lambda child: int(child.name))


def _described(path: Path, count: int) -> tuple[OmeImage, ...]:
    """Read the images' OME-XML written by bioformats2raw; empty if it does not match them all."""
    file = path / "OME" / "METADATA.ome.xml"
    if not file.is_file() or file.stat().st_size > limits().metadata_bytes:
        return ()
    found = ome_images(file.read_text(encoding="utf-8", errors="replace"))
    return found if len(found) == count else ()


def _scene(image: OmeZarrImage, about: OmeImage | None) -> Scene:
    name = str(image.scales.get("name") or "") if about is None else about.name
    axes = [str(axis["name"]) for axis in image.scales["axes"]]
    first = image.scales["datasets"][0]
    shape = dict(zip(axes, _shape(image.group / str(first["path"])), strict=True))
    extent = Extent(height=int(shape["y"]), width=int(shape["x"]))
    mpp = None if about is None else about.resolution.mpp
    if about is None:
        scale = first.get("coordinateTransformations", [{}])[0].get("scale", [])
        units = [micrometres(str(axis.get("unit", ""))) for axis in image.scales["axes"]]
        sizes = {
            axis: float(size) * unit for axis, size, unit in zip(axes, scale, units, strict=False)
        }
        x, y = sizes.get("x"), sizes.get("y")
        mpp = pixel_resolution(x, y, "ome").mpp
    return Scene(name, extent, mpp, associated_kind(name))


def _shape(array: Path) -> list[int]:
    file = array / "zarr.json"
    shape: list[int] = _read(file if file.is_file() else array / ".zarray")["shape"]
    return shape


def _images(group: Path) -> list[OmeZarrImage]:
    """Return the entries of a group's ``multiscales``, with the channels in ``omero``."""
    attributes = _attributes(group)
    if not attributes.get("multiscales"):
        what = describe_group(group)
        if what.startswith("a Zarr group"):
            what = (
                "a Zarr group without multiscales; expected an OME-Zarr image; name the folder of "
                "one image"
            )
        raise UnsupportedSlideError(f"{group}: got {what}")
    omero = attributes.get("omero")
    listed = omero.get("channels", ()) if isinstance(omero, dict) else ()
    names = tuple(str(channel.get("label") or "") for channel in listed)
    colours = tuple(str(channel.get("color") or "") for channel in listed)
    images = [
        OmeZarrImage(group, _version(group, attributes, scales), scales, names, colours)
        for scales in attributes["multiscales"]
    ]
    for image in images:
        _require_valid(group, image.scales)
    return images


def _require_valid(group: Path, scales: dict[str, Any]) -> None:
    """Raise SlideError for metadata that do not have the structure of OME-Zarr 0.4 and 0.5."""
    axes, datasets = scales.get("axes"), scales.get("datasets")
    if not _are_objects(axes, "name"):
        raise SlideError(
            f"{group}: got axes {str(axes)[:80]}; expected a list of objects with a name"
        )
    if not _are_objects(datasets, "path"):
        raise SlideError(
            f"{group}: got datasets {str(datasets)[:80]}; expected a list of levels with a path"
        )
    for entry in (*datasets, scales):
        for transformation in entry.get("coordinateTransformations") or ():
            scale = transformation.get("scale")
            if transformation.get("type") == "scale" and len(scale or ()) != len(axes):
                raise SlideError(
                    f"{group}: got the scale {str(scale)[:80]}; expected {len(axes)} numbers, one "
                    "per axis"
                )


def _are_objects(found: object, key: str) -> TypeGuard[list[dict[str, Any]]]:
    return (
        isinstance(found, list)
        and len(found) > 0
        and all(isinstance(one, dict) and isinstance(one.get(key), str) for one in found)
    )


def _version(group: Path, attributes: dict[str, Any], scales: dict[str, Any]) -> str:
    """Return the stated version, which 0.4 only recommends, or else the one the layout implies."""
    stated = attributes.get("version") or scales.get("version")
    if stated is None and all(isinstance(axis, dict) for axis in scales.get("axes") or [""]):
        return "0.5" if (group / "zarr.json").is_file() else "0.4"
    if str(stated) not in _VERSIONS:
        what = stated or "without a version"
        raise UnsupportedSlideError(
            f"{group}: got OME-Zarr {what}; expected 0.4 or 0.5; convert it"
        )
    return str(stated)


def _translate_errors(path: Path) -> AbstractContextManager[None]:
    return translate_errors(
        path, "cannot be read as OME-Zarr: ", "a whole OME-Zarr 0.4 or 0.5 image"
    )


def _attributes(folder: Path) -> dict[str, Any]:
    """Return the OME attributes of a group, in the structure of 0.4."""
    with _translate_errors(folder):
        if (folder / "zarr.json").is_file():
            attributes = _read(folder / "zarr.json")["attributes"]
            found = attributes.get("ome", attributes)  # some write 0.4 into Zarr v3
        else:
            found = _read(folder / ".zattrs")
    return found if isinstance(found, dict) else {}


def _read(file: Path) -> Any:  # noqa: ANN401 (parsed JSON)
    if file.stat().st_size > limits().metadata_bytes:
        raise SlideError(f"{file} has {file.stat().st_size} bytes; {advice('metadata_bytes')}")
    return parse_json(file.read_bytes())
