"""Owns colour statistics of slides, and detecting slides that differ from a training set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from skimage.color import rgb2lab

from wsi_seg.batch import require_none, run_each
from wsi_seg.counts import counted
from wsi_seg.errors import StoreError
from wsi_seg.progress import Progress
from wsi_seg.reading.resample import read_label
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store import Collection, SlideStore, read_thumbnail
from wsi_seg.store.names import TISSUE

# Longer side of the thumbnail that is measured.
_LONGEST_PX = 512

# Threshold in robust standard deviations from the median of the others, and the minimum deviation:
# slides of one batch may be nearly equal, and 2 units of L*a*b* are hardly visible.
_THRESHOLD = 4.0
_MIN_DEVIATION = 2.0
# Ratio of standard deviation to median absolute deviation of a normal distribution.
_NORMAL = 1.4826
# Largest ratio of mpp that counts as the same resolution, as in inference.
_SAME_MPP = 1.2


@dataclass(frozen=True, slots=True)
class SlideLook:
    """Colour statistics of the tissue of one slide, or of all of it without a tissue mask.

    Parameters
    ----------
    lightness, red_green, yellow_blue
        Mean L*, a* and b* (CIE 1976), 0 to 100 and about -100 to 100.
    lightness_sd, red_green_sd, yellow_blue_sd
        Their standard deviations.
    mpp
        Micrometres per pixel of level 0; None if unknown.
    """

    lightness: float
    red_green: float
    yellow_blue: float
    lightness_sd: float
    red_green_sd: float
    yellow_blue_sd: float
    mpp: float | None = None


# Statistics whose distributions are compared.
FIGURES = (
    "lightness", "red_green", "yellow_blue", "lightness_sd", "red_green_sd", "yellow_blue_sd",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Looks:
    """Colour statistics of a collection's slides, and error messages of slides that failed."""

    slides: Mapping[str, SlideLook]
    failures: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, ...]]:
        """Return table rows: slide, the six statistics, mpp."""
        return [
            (
                name,
                *(f"{getattr(look, figure):.1f}" for figure in FIGURES),
                "-" if look.mpp is None else f"{look.mpp:.4g}",
            )
            for name, look in self.slides.items()
        ]

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides could not be measured."""
        require_none(self.failures, done=len(self.slides))


@dataclass(frozen=True, slots=True)
class Drift:
    """Differences between the slides of two collections.

    Parameters
    ----------
    distances
        Kolmogorov-Smirnov statistic of each colour statistic, 0 to 1.
    verdicts
        Deviations of each slide from the others, in words; empty if there are none.
    """

    distances: Mapping[str, float]
    verdicts: Mapping[str, tuple[str, ...]]

    def lines(self) -> list[str]:
        """Summarise the differences as lines of text."""
        far = {name: words for name, words in self.verdicts.items() if words}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in self.distances.items())
        slides = counted(len(self.verdicts), "slide")
        return [
            f"distance of the distributions, 0 to 1: {shown}",
            *(f"{name}: unlike the others: {'; '.join(words)}" for name, words in far.items()),
            f"like the others: {len(self.verdicts) - len(far)} of {slides}",
        ]

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return asdict(self)


def measure_looks(collection: Collection, *, progress: Progress) -> Looks:
    """Measure colour statistics on a thumbnail of each slide, in constant memory.

    Parameters
    ----------
    collection
        The slides.
    progress
        Advanced once per slide.

    Examples
    --------
    >>> measure_looks(open_collection("store.zarr"), progress=Silent()).slides  # doctest: +SKIP
    {'a': SlideLook(lightness=61.2, red_green=24.0, yellow_blue=-13.1, lightness_sd=9.8, ...)}
    """
    batch = run_each(
        collection.names(), lambda name: _look(collection[name]), title="measure", progress=progress
    )
    return Looks(batch.results, batch.failures)


def compare_looks(found: Looks, others: Looks) -> Drift:
    """Compare slides with the training slides of a model.

    A slide differs in a statistic that is more than four robust standard deviations (1.48 times the
    median absolute deviation, at least 2 units) from the median of the training slides, or if its
    mpp differs from their median by more than 20 %.

    Parameters
    ----------
    found
        Slides to check.
    others
        Slides to compare them with.

    Raises
    ------
    StoreError
        If either has no slides.
    """
    if not found.slides or not others.slides:
        raise StoreError(
            f"got {counted(len(found.slides), 'slide')} to compare with {len(others.slides)}; "
            "expected at least one of both"
        )
    ours, theirs = _values(found), _values(others)
    middle = np.median(theirs, axis=0)
    deviation = np.median(np.abs(theirs - middle), axis=0) * _NORMAL
    deviation = np.maximum(deviation, _MIN_DEVIATION)
    known = [look.mpp for look in others.slides.values() if look.mpp is not None]
    mpp = float(np.median(known)) if known else None
    verdicts = {}
    for (name, look), row in zip(found.slides.items(), (ours - middle) / deviation, strict=True):
        words = [
            f"{figure} {value:+.1f} deviations"
            for figure, value in zip(FIGURES, row, strict=True)
            if abs(value) > _THRESHOLD
        ]
        verdicts[name] = (*words, *_unlike_mpp(look.mpp, mpp))
    distances = {
        figure: float(ks_2samp(ours[:, n], theirs[:, n]).statistic)
        for n, figure in enumerate(FIGURES)
    }
    return Drift(distances, verdicts)


def distribution(stores: Sequence[SlideStore]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each of `FIGURES` over slides, ``(6,)`` float64."""
    values = _values(Looks({store.name: _look(store) for store in stores}))
    return values.mean(axis=0), values.std(axis=0)


def _unlike_mpp(own: float | None, others: float | None) -> list[str]:
    if own is None or others is None or max(own / others, others / own) <= _SAME_MPP:
        return []
    return [f"{own:.4g} um per pixel, not {others:.4g}"]


def _values(looks: Looks) -> NDArray[np.float64]:
    """Stack the statistics of all slides, ``(n, 6)``."""
    return np.array([[getattr(look, name) for name in FIGURES] for look in looks.slides.values()])


def _look(store: SlideStore) -> SlideLook:
    size = thumbnail_extent(store.pyramid.extent, _LONGEST_PX)
    lab = rgb2lab(read_thumbnail(store.image, size)).reshape(-1, 3)
    if TISSUE in store.label_names():
        label = store.label(TISSUE)
        tissue = read_label(label, size, 0, 0, height=size.height, width=size.width)
        inside = tissue.reshape(-1) == 1
        lab = lab[inside] if inside.any() else lab
    figures = np.concatenate([lab.mean(axis=0), lab.std(axis=0)]).tolist()
    return SlideLook(**dict(zip(FIGURES, figures, strict=True)), mpp=store.pyramid.mpp)
