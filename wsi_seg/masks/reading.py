"""Owns how annotation files are read: which classes, and under which names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wsi_seg.choices import Dialect
from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError
from wsi_seg.slides.volume import VolumeGrid


@dataclass(frozen=True, slots=True)
class Reading:
    """How annotation files are read.

    Parameters
    ----------
    class_names
        Classes in the order of their ids; empty takes all that occur, sorted by name. The class
        ``ignore`` is not one of them: its outlines are drawn as 255.
    merged
        Names in the files that are another class, and which.
    default_class
        Class of features that name none; None refuses them.
    dialect
        How a csv writes runs; None finds it from the masks.
    volumes
        Volumes whose slices the slides are, for csv files of spheres; by name.
    boundary_um
        Width of strips of the class ``boundary`` between objects that touch, pixels of level 0
        where mpp is unknown; 0 draws none.
    samples
        Points a side of a pixel that decide its class at low levels; 1 takes the centre.
    unlisted_empty
        The files name everything there is: slides without such a label get one with nothing on
        it, and are learned from as such. Labels drawn earlier stay.
    overlapping
        Draw each class in a plane of its own, so that one may be over or inside another.
    covered
        Of overlapping classes, those that the files are of; the others are ignored on their slides,
        where nobody drew them. Empty are all.
    source, weight
        Replace what files say about who drew and how much it counts; None keeps that.
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
        """Class table of the label, of these names.

        Raises
        ------
        ConfigError
            If what is covered is not one of several overlapping classes.
        """
        table = ClassTable.named(names, mode="overlapping" if self.overlapping else None)
        strange = sorted(set(self.covered) - set(table.names))
        if self.covered and (strange or table.planes is None):
            raise ConfigError(
                f"got covered classes {', '.join(self.covered)}; expected some of several "
                f"overlapping classes (there are {', '.join(table.names)}); name these with "
                "--overlapping --classes"
            )
        return table


PLAIN = Reading()
