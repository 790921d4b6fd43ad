"""Owns writing a QuPath project: its images, its classes, and a script that imports the objects.

QuPath stores the objects of an image as serialised Java, which we cannot write. So the project
folder has them as GeoJSON, and the script imports that.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsi_seg.classes import ClassTable
from wsi_seg.errors import OutputError
from wsi_seg.files.atomic import atomic_path
from wsi_seg.slides import search_slides, slide_name

OBJECTS = "objects"

PROJECT = "project.qpproj"
# QuPath version of the project format; later versions read it.
_VERSION = "0.5.0"
_SCRIPT = """\
// Imports the objects found by wsi-seg into the open image; use "Run for project" for all images.
// Objects that the image already has are skipped.
def file = new File(buildPathInProject("objects", getProjectEntry().getMetadataMap()["objects"]))
def known = getAllObjects(false).collect { it.getID() } as Set
addObjects(qupath.lib.io.PathIO.readObjects(file).findAll { !known.contains(it.getID()) })
"""


def project_slides(folder: Path, source: Path, names: Iterable[str]) -> dict[str, Path]:
    """Find the files of slides for a new project.

    Parameters
    ----------
    folder
        Folder of the project.
    source
        File or folder of the slides.
    names
        Names of the slides.

    Returns
    -------
    dict[str, Path]
        Files by slide name.

    Raises
    ------
    OutputError
        If a slide is not found, or the folder already has a project.
    """
    if (folder / PROJECT).exists():
        raise OutputError(
            f"{folder} has a QuPath project already; expected another folder, as overwriting the "
            "project would lose work in it"
        )
    known = {slide_name(path): path for path in search_slides([source]).slides}
    missing = [name for name in names if name not in known]
    if missing:
        raise OutputError(
            f"got no files of {', '.join(map(repr, missing))} in {source}; expected the slides "
            "that were predicted, under the same names"
        )
    return {name: known[name] for name in names}


def write_qupath_project(
    folder: Path, slides: Mapping[str, Path], objects: Mapping[str, Path], classes: ClassTable
) -> list[Path]:
    """Write a project with an entry for each exported slide, and return the written files.

    Parameters
    ----------
    folder
        Folder of the project.
    slides
        Files by slide name.
    objects
        GeoJSON files by the names of exported slides, in the subfolder `OBJECTS`.
    classes
        Classes of the project.

    Raises
    ------
    OutputError
        If a file cannot be written.

    Examples
    --------
    >>> slides, objects = {"a": Path("a.svs")}, {"a": Path("project/objects/a.geojson")}
    >>> write_qupath_project(Path("project"), slides, objects, classes)  # doctest: +SKIP
    """
    now = round(time.time() * 1000)
    project = folder / PROJECT
    entries = [
        {
            # Without a provider, QuPath chooses the reader that supports the file.
            "serverBuilder": {"builderType": "uri", "uri": path.resolve().as_uri(), "args": []},
            "entryID": number,
            "imageName": path.name,
            "metadata": {"objects": objects[name].name},
        }
        for number, (name, path) in enumerate(slides.items(), 1)
        if name in objects
    ]
    about = {
        "version": _VERSION,
        "createTimestamp": now,
        "modifyTimestamp": now,
        "uri": project.resolve().as_uri(),
        "lastID": len(entries),
        "images": entries,
    }
    coloured = [{"name": entry.name, "color": _packed(entry.rgb)} for entry in classes]
    texts = {
        folder / "scripts" / "import objects.groovy": _SCRIPT,
        folder / "classifiers" / "classes.json": json.dumps({"pathClasses": coloured}, indent=2),
        project: json.dumps(about, indent=2),  # last, because it makes the project complete
    }
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def _packed(rgb: tuple[int, int, int]) -> int:
    """Pack an opaque colour into a signed 32-bit ARGB integer, as QuPath stores it."""
    return int.from_bytes([255, *rgb], signed=True)
