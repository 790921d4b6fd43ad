"""Owns streaming objects to ASAP XML: one group per class, polygons without holes."""

from pathlib import Path
from xml.sax.saxutils import quoteattr

import shapely
from shapely.geometry import Polygon

from wsi_seg.exporting.holes import without_holes
from wsi_seg.exporting.outlines import Outlines
from wsi_seg.files.atomic import atomic_path


def write_asap(path: Path, objects: Outlines) -> int:
    """Write objects to an ASAP XML file atomically, and return their number.

    ASAP polygons cannot have holes. An object with holes is split along straight lines into several
    polygons of the same name.

    Parameters
    ----------
    path
        File to write.
    objects
        Objects of one slide.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    classes = {entry.id: entry for entry in objects.classes}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<ASAP_Annotations>\n<Annotations>\n')
        for batch in objects.batches():
            rows = zip(batch.number.tolist(), batch.class_id.tolist(), batch.polygons, strict=True)
            for number, class_id, polygon in rows:
                entry = classes[class_id]
                attributes = (
                    f'Name={quoteattr(f"{entry.name} {number}")} Type="Polygon" '
                    f'PartOfGroup={quoteattr(entry.name)} Color="{entry.colour}"'
                )
                for part in without_holes(polygon):
                    file.write(f"<Annotation {attributes}>\n{_coordinates(part)}</Annotation>\n")
        file.write("</Annotations>\n<AnnotationGroups>\n")
        for entry in objects.classes:
            file.write(
                f'<Group Name={quoteattr(entry.name)} PartOfGroup="None" Color="{entry.colour}">'
                "<Attributes /></Group>\n"
            )
        file.write("</AnnotationGroups>\n</ASAP_Annotations>\n")
    return len(objects)


def _coordinates(polygon: Polygon) -> str:
    points = shapely.get_coordinates(polygon.exterior)[:-1].tolist()
    inner = "".join(
        f'<Coordinate Order="{order}" X="{x}" Y="{y}" />\n' for order, (x, y) in enumerate(points)
    )
    return f"<Coordinates>\n{inner}</Coordinates>\n"
