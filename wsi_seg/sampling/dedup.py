"""Owns finding copies of one slide in a collection, so that folds never separate them.

Two slides are copies if their files have the same bytes (as far as tiling digested them), or the
same shape and thumbnails that correlate: then one was encoded again.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.atomic import write_atomic
from wsi_seg.batch import require_none, run_each
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent
from wsi_seg.progress import Progress
from wsi_seg.store import Collection, SlideStore, read_thumbnail

FILE = "duplicates.json"

_THUMBNAIL_PX = 64
# Encoding again leaves 0.999 and more; neighbouring sections of one block stay below 0.98.
_LEAST_CORRELATION = 0.99
# Grey levels by which a thumbnail must vary to be compared with others at all.
_LEAST_SPREAD = 2.0
_SHAPE_TOLERANCE = 0.01

# Slides that are compared with all others at a time.
_ROWS = 128


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of slides that are copies of each other; slides without a copy are in none.

    ``slides`` were compared, ``failures`` says why others could not be.
    """

    slides: int
    groups: tuple[tuple[str, ...], ...]
    failures: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Name the groups in sentences for people."""
        if not self.groups:
            return [f"{self.slides} slides, no two of them are copies"]
        groups = [f"  {' = '.join(group)}" for group in self.groups]
        return [f"{self.slides} slides, {len(self.groups)} groups of copies:", *groups]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides could not be compared; all others are done."""
        require_none(self.failures, done=self.slides)


def find_duplicates(collection: Collection, *, progress: Progress) -> Duplicates:
    """Look for copies; time grows with the square of the number of slides, not with their size.

    Held are a thumbnail of 16 KiB of each slide, some 20 bytes for each slide and row of a block
    that is compared, and the pairs that were found: 200 MB for 10,000 slides.

    Parameters
    ----------
    collection
        The slides.
    progress
        Advanced by slides.
    """

    def work(name: str) -> tuple[object, float, NDArray[np.float32]]:
        store = collection[name]
        extent = store.pyramid.extent
        return _digest(store), extent.width / extent.height, _picture(store)

    batch = run_each(collection.names(), work, title="compare", progress=progress)
    names, found = list(batch.results), list(batch.results.values())
    digests = [digest for digest, _, _ in found]
    shapes = np.array([shape for _, shape, _ in found], dtype=np.float64)
    pictures = np.array([picture for _, _, picture in found], dtype=np.float32)
    pictures = pictures.reshape(len(names), _THUMBNAIL_PX**2)  # also where there are none
    first: dict[object, int] = {}
    pairs = list(_alike(pictures, shapes))
    pairs += [[first.setdefault(d, n), n] for n, d in enumerate(digests) if d is not None]
    groups = connected([names[a], names[b]] for a, b in pairs)
    return Duplicates(len(names), groups, batch.failures)


def _alike(pictures: NDArray[np.float32], shapes: NDArray[np.float64]) -> Iterator[list[int]]:
    """Pairs of slides whose thumbnails correlate and whose shapes agree, the lower number first."""
    for start in range(0, len(pictures), _ROWS):
        rows = slice(start, start + _ROWS)
        same = pictures[rows] @ pictures[start:].T >= _LEAST_CORRELATION
        same &= np.abs(shapes[rows, None] / shapes[None, start:] - 1) <= _SHAPE_TOLERANCE
        yield from (np.argwhere(np.triu(same, 1)) + start).tolist()


def connected(links: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Find the connected components of linked names; names without a link are left out."""
    groups: dict[str, set[str]] = {}
    for link in links:
        merged = set(link).union(*(groups.get(name, ()) for name in link))
        groups |= dict.fromkeys(merged, merged)
    found = {tuple(sorted(group)) for group in groups.values() if len(group) > 1}
    return tuple(sorted(found))


def write_duplicates(collection: Path, found: Duplicates) -> Path:
    """Note the groups in the collection, where folds look for them.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = collection / FILE
    write_atomic(path, json.dumps({"groups": found.groups}, indent=1))
    return path


def read_duplicates(collection: Path) -> tuple[tuple[str, ...], ...]:
    """Read the groups that were noted in a collection; none if they were not searched.

    Raises
    ------
    StoreError
        If the file is damaged.
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


def _picture(store: SlideStore) -> NDArray[np.float32]:
    """Thumbnail with mean 0 and length 1, so that products are correlations; 0 if it is plain."""
    extent = store.pyramid.extent
    size = Extent(height=min(_THUMBNAIL_PX, extent.height), width=min(_THUMBNAIL_PX, extent.width))
    grey = read_thumbnail(store.image, size).mean(axis=2)
    if grey.shape != (_THUMBNAIL_PX, _THUMBNAIL_PX):
        rows = np.arange(_THUMBNAIL_PX) * size.height // _THUMBNAIL_PX
        columns = np.arange(_THUMBNAIL_PX) * size.width // _THUMBNAIL_PX
        grey = grey[np.ix_(rows, columns)]
    if float(grey.std()) < _LEAST_SPREAD:
        return np.zeros(_THUMBNAIL_PX**2, dtype=np.float32)
    flat = (grey - grey.mean()).ravel()
    scaled: NDArray[np.float32] = (flat / np.linalg.norm(flat)).astype(np.float32)
    return scaled
