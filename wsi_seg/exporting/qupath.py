"""Owns a QuPath project: its slides, its classes, and a script that adds the objects.

QuPath keeps the objects of an image as serialised Java, which only Java writes well; so they are
GeoJSON in the project's folder, which the script reads.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsi_seg.atomic import atomic_path
from wsi_seg.classes import ClassTable
from wsi_seg.errors import OutputError
from wsi_seg.slides import search_slides, slide_name

OBJECTS = "objects"

PROJECT = "project.qpproj"
# Of QuPath whose form of projects this is; later ones read it.
_VERSION = "0.5.0"
_SCRIPT = """\
// Adds the objects that wsi-seg found to the open image; "Run for project" does so for all images.
// Objects that an image has already are not added again.
def file = new File(buildPathInProject("objects", getProjectEntry().getMetadataMap()["objects"]))
def known = getAllObjects(false).collect { it.getID() } as Set
addObjects(qupath.lib.io.PathIO.readObjects(file).findAll { !known.contains(it.getID()) })
"""


def project_slides(folder: Path, source: Path, names: Iterable[str]) -> dict[str, Path]:
    """Find the files of slides for a new project.

    Parameters
    ----------
    folder
        Of the project.
    source
        Where the slides are: a file, or a folder.
    names
        Of the slides.

    Returns
    -------
    dict[str, Path]
        File of each slide, by its name.

    Raises
    ------
    OutputError
        If a slide is not there, or the folder has a project, which people may have worked in.
    """
    if (folder / PROJECT).exists():
        raise OutputError(
            f"{folder} has a QuPath project already; expected another folder, as the project may "
            "have work in it"
        )
    known = {slide_name(path): path for path in search_slides([source]).slides}
    missing = [name for name in names if name not in known]
    if missing:
        raise OutputError(
            f"got no files of {', '.join(map(repr, missing))} in {source}; expected the slides "
            "that were predicted, with their names"
        )
    return {name: known[name] for name in names}


def write_qupath_project(
    folder: Path, slides: Mapping[str, Path], objects: Mapping[str, Path], classes: ClassTable
) -> list[Path]:
    """Write a project with an entry for each slide; return the files.

    Parameters
    ----------
    folder
        Of the project.
    slides
        File of each slide, by its name.
    objects
        GeoJSON of those that were exported, in `OBJECTS` of the folder.
    classes
        Become the classes of the project.

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
            # Without a provider QuPath takes the reader that suits the file.
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
        project: json.dumps(about, indent=2),  # last: with it a project is complete
    }
    for path, text in texts.items():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def _packed(rgb: tuple[int, int, int]) -> int:
    """Colour as a signed number of 32 bits, opaque, as QuPath keeps it."""
    return int.from_bytes([255, *rgb], signed=True)
