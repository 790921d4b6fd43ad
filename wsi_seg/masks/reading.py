"""Owns the options of reading annotation files: classes, names, weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wsi_seg.choices import Dialect
from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError
from wsi_seg.slides.volume import VolumeGrid


@dataclass(frozen=True, slots=True)
class Reading:
    """Options of reading annotation files.

    Parameters
    ----------
    class_names
        Classes in the order of their ids; if empty, all that occur, sorted by name. ``ignore`` is
        not a class: its outlines are drawn as 255.
    merged
        Class by name in the files, for names that differ from the class.
    default_class
        Class of features without one; None refuses them.
    dialect
        RLE dialect of csv files; None detects it from the masks.
    volumes
        Grids of the volumes of which the slides are slices, by name, for csv files of spheres.
    boundary_um
        Width of the strips of class ``boundary`` between touching objects, in um, or in level-0
        pixels if the mpp is unknown; 0 draws none.
    samples
        Points per side of a pixel that vote for its class at low resolutions; 1 uses the centre.
    unlisted_empty
        Whether the files are complete: slides without annotations get an empty label, and are used
        as negatives in training. Existing labels are unchanged.
    overlapping
        Whether to draw each class in its own plane, so that classes may overlap.
    covered
        If classes overlap, those that were annotated; the planes of the others are set to ignore.
        Empty means all.
    source, weight
        Override source and weight of the annotations; None keeps the values in the files.
    """

    class_names: tuple[str, ...] = ()
    default_class: str | None = None
    dialect: Dialect | None = None
    source: str | None = None
    weight: float | None = None
    volumes: Mapping[str, VolumeGrid] = field(default_factory=dict)
    boundary_um: float = 0.0
    samples: int = 1
    unlisted_empty: bool = False
    merged: Mapping[str, str] = field(default_factory=dict)
    overlapping: bool = False
    covered: tuple[str, ...] = ()

    def classes(self, names: Sequence[str]) -> ClassTable:
        """Return the class table of the label.

        Raises
        ------
        ConfigError
            If ``covered`` names classes that are not overlapping classes of the table.
        """
        table = ClassTable.named(names, mode="overlapping" if self.overlapping else None)
        unknown = set(self.covered) - set(table.names)
        if self.covered and (unknown or table.planes is None):
            raise ConfigError(
                f"got covered classes {', '.join(self.covered)}; expected some of several "
                f"overlapping classes (got {', '.join(table.names)}); name these with "
                "--overlapping --classes"
            )
        return table


PLAIN = Reading()
