"""Owns writing an image or label in strips, under a temporary name until it is complete."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.files.atomic import requiring_same
from wsi_seg.geometry import Region
from wsi_seg.progress import Silent
from wsi_seg.store.layout import Layout, create_multiscale
from wsi_seg.store.names import LABELS, PARTIAL
from wsi_seg.store.pyramid import fill_pyramid
from wsi_seg.store.writer import commit, delete, remove_if_empty, strip_rows, write_strip


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """Image or label that is being written; created by `writing`.

    Parameters
    ----------
    path
        Folder of the unfinished group.
    layout
        Size and resolution.
    nearest
        Whether coarser levels use nearest-neighbour sampling, for class ids.
    """

    path: Path
    layout: Layout
    nearest: bool
    _inside: list["Draft"] = field(default_factory=list)

    def strips(self, level: int = 0) -> Iterator[Region]:
        """Iterate over the strips of a level from top to bottom, as regions for `write`."""
        return self.layout.extents[level].strips(strip_rows(self.path, level), level)

    def write(self, strip: Region, pixels: NDArray[np.uint8]) -> None:
        """Write one strip; strips that are never written are 0.

        Parameters
        ----------
        strip
            One of `strips`.
        pixels
            ``(H, W, C)``, or ``(H, W)`` for a label, uint8.

        Raises
        ------
        StoreError
            If the pixels have another shape or dtype than the strip.
        OutputError
            If they cannot be written.
        """
        write_strip(self.path, strip.level, strip.y, pixels)

    def inside(self, name: str, layout: Layout, attributes: Mapping[str, object]) -> "Draft":
        """Start another image or label inside this one, such as ``labels/prediction``."""
        draft = _start_draft(self.path / name, layout, attributes)
        self._inside.append(draft)
        return draft

    def _complete(self) -> None:
        for draft in (*self._inside, self):
            if draft.layout.coarser:
                fill_pyramid(draft.path, nearest=draft.nearest, progress=Silent())


def _start_draft(path: Path, layout: Layout, attributes: Mapping[str, object]) -> Draft:
    create_multiscale(path, layout, attributes)
    return Draft(path, layout, layout.channels is None or attributes.get("kind") == "label")


@contextmanager
def writing(path: Path, layout: Layout, attributes: Mapping[str, object]) -> Iterator[Draft]:
    """Write an image or label, which replaces an existing one when the block ends.

    Until then it is in the folder of unfinished work, which is never read. After an error it stays
    there, and the next attempt starts over.

    Parameters
    ----------
    path
        Final path: a folder in a collection, or in the ``labels`` of a slide.
    layout
        Size and resolution.
    attributes
        Plain JSON values to store; see `wsi_seg.store.info`.

    Yields
    ------
    Draft
        Object to write the strips with.

    Raises
    ------
    OutputError
        If it cannot be written.

    Examples
    --------
    >>> layout = Layout.like(store.image)  # doctest: +SKIP
    >>> with writing(store.path / "labels" / "mine", layout, {}) as draft:  # doctest: +SKIP
    ...     for strip in draft.strips():
    ...         draft.write(strip, ids[strip.slices])
    """
    group = path.parent.parent if path.parent.name == LABELS else path.parent
    partial = group / PARTIAL / path.name
    delete(partial)
    draft = _start_draft(partial, layout, attributes)
    with requiring_same(partial) as require_same:
        yield draft
        draft._complete()
        require_same()
    commit(partial, path, replace=True)
    remove_if_empty(group)
