"""Owns finding duplicates of slides in a collection, so that no split separates them.

Two slides are duplicates if their files have the same digest and size, or if they have the same
shape and their thumbnails correlate, as after re-encoding.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.counts import counted
from wsi_seg.errors import StoreError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.half_written import remove_partials
from wsi_seg.geometry import Extent
from wsi_seg.progress import Progress
from wsi_seg.store import Collection, SlideStore, read_thumbnail

FILE = "duplicates.json"

_THUMBNAIL_PX = 64
# Re-encoding keeps 0.999 or more; adjacent sections of one block are below 0.98.
_MIN_CORRELATION = 0.99
# Minimum standard deviation of a thumbnail in grey levels; plainer ones are not compared.
_MIN_STD = 2.0
_SHAPE_TOLERANCE = 0.01

# Slides compared with all others at a time.
_ROWS = 128


@dataclass(frozen=True, slots=True)
class Duplicates(SlidesReport[str]):
    """Groups of slides that are duplicates of each other, with two or more slides each.

    Parameters
    ----------
    slides
        Names of the slides that were compared.
    groups
        Names of the slides of each group, sorted.
    failures
        Error message of each slide that could not be read, by name.
    """

    groups: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """Summarise the groups as lines of text."""
        slides, count = counted(len(self.slides), "slide"), counted(len(self.groups), "group")
        if not self.groups:
            return [f"{slides}, no two of them are copies"]
        groups = [f"  {' = '.join(group)}" for group in self.groups]
        return [f"{slides}, {count} of copies:", *groups]


def find_duplicates(collection: Collection, *, progress: Progress) -> Duplicates:
    """Find duplicate slides; time is quadratic in the number of slides, whatever their size.

    Memory holds a thumbnail of 16 KiB per slide, about 20 bytes per slide and row of the block
    being compared, and the pairs found: 200 MB for 10,000 slides.

    Parameters
    ----------
    collection
        The slides.
    progress
        Advanced once per slide.
    """

    def work(name: str) -> tuple[object, float, NDArray[np.float32]]:
        store = collection[name]
        extent = store.pyramid.extent
        return _digest(store), extent.width / extent.height, _normalized_thumbnail(store)

    batch = run_each(collection.names(), work, title="compare", progress=progress)
    names, found = list(batch.results), list(batch.results.values())
    digests = [digest for digest, _, _ in found]
    shapes = np.array([shape for _, shape, _ in found], dtype=np.float64)
    thumbnails = np.array([thumbnail for _, _, thumbnail in found], dtype=np.float32)
    thumbnails = thumbnails.reshape(len(names), _THUMBNAIL_PX**2)  # even if there are no slides
    first: dict[object, int] = {}
    pairs = list(_alike(thumbnails, shapes))
    pairs += [[first.setdefault(d, n), n] for n, d in enumerate(digests) if d is not None]
    groups = connected([names[a], names[b]] for a, b in pairs)
    return Duplicates(tuple(names), groups, failures=batch.failures)


def _alike(thumbnails: NDArray[np.float32], shapes: NDArray[np.float64]) -> Iterator[list[int]]:
    """Yield pairs of slides with correlated thumbnails and equal shapes, lower index first."""
    for start in range(0, len(thumbnails), _ROWS):
        rows = slice(start, start + _ROWS)
        same = thumbnails[rows] @ thumbnails[start:].T >= _MIN_CORRELATION
        same &= np.abs(shapes[rows, None] / shapes[None, start:] - 1) <= _SHAPE_TOLERANCE
        yield from (np.argwhere(np.triu(same, 1)) + start).tolist()


def connected(links: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Return the connected components of linked names, sorted; single names are left out."""
    groups: dict[str, set[str]] = {}
    for link in links:
        merged = set(link).union(*(groups.get(name, ()) for name in link))
        groups |= dict.fromkeys(merged, merged)
    found = {tuple(sorted(group)) for group in groups.values() if len(group) > 1}
    return tuple(sorted(found))


def write_duplicates(collection: Path, found: Duplicates) -> Path:
    """Write the groups into the collection, where the split reads them.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = collection / FILE
    write_atomic(path, json.dumps({"groups": found.groups}, indent=1))
    remove_partials((path,))
    return path


def read_duplicates(collection: Path) -> tuple[tuple[str, ...], ...]:
    """Read the groups written by `write_duplicates`; empty if there is no file.

    Raises
    ------
    StoreError
        If the file cannot be read or is damaged.
    """
    path = collection / FILE
    try:
        groups = json.loads(path.read_bytes())["groups"]
        return tuple(tuple(str(name) for name in group) for group in groups)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read ({error}); run `wsi-seg dedup` again") from error


def _digest(store: SlideStore) -> object:
    source = store.attributes.get("source")
    if not isinstance(source, dict) or not source.get("sha256_of_ends"):
        return None
    return source.get("sha256_of_ends"), source.get("bytes")


def _normalized_thumbnail(store: SlideStore) -> NDArray[np.float32]:
    """Return a thumbnail with mean 0 and norm 1, so that products are correlations; 0 if plain."""
    extent = store.pyramid.extent
    size = Extent(height=min(_THUMBNAIL_PX, extent.height), width=min(_THUMBNAIL_PX, extent.width))
    grey = read_thumbnail(store.image, size).mean(axis=2)
    if grey.shape != (_THUMBNAIL_PX, _THUMBNAIL_PX):
        rows = np.arange(_THUMBNAIL_PX) * size.height // _THUMBNAIL_PX
        columns = np.arange(_THUMBNAIL_PX) * size.width // _THUMBNAIL_PX
        grey = grey[np.ix_(rows, columns)]
    if float(grey.std()) < _MIN_STD:
        return np.zeros(_THUMBNAIL_PX**2, dtype=np.float32)
    flat = (grey - grey.mean()).ravel()
    scaled: NDArray[np.float32] = (flat / np.linalg.norm(flat)).astype(np.float32)
    return scaled
