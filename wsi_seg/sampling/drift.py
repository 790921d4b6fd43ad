"""Owns how slides look as a whole, and which look unlike those that a model learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from skimage.color import rgb2lab

from wsi_seg.batch import require_none, run_each
from wsi_seg.errors import StoreError
from wsi_seg.progress import Progress
from wsi_seg.reading.resample import read_label
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store import Collection, SlideStore, read_thumbnail
from wsi_seg.store.names import TISSUE

# Side of the picture that is measured.
_LONGEST_PX = 512

# How many deviations from the middle of the others are unlike them, and the least that one counts:
# slides of one batch may be all but equal, and an eye hardly sees 2 units of L*a*b*.
_FAR = 4.0
_LEAST_DEVIATION = 2.0
# Deviation of a normal distribution from the median of absolute differences.
_NORMAL = 1.4826
# An mpp that differs by more than this is another resolution, as in inference.
_SAME_MPP = 1.2


@dataclass(frozen=True, slots=True)
class SlideLook:
    """How the tissue of one slide looks; all of it where there is no tissue mask.

    Parameters
    ----------
    lightness, red_green, yellow_blue
        Mean L*, a* and b* (CIE 1976), 0 to 100 and about -100 to 100.
    lightness_sd, red_green_sd, yellow_blue_sd
        Their standard deviations.
    mpp
        Micrometres per pixel of level 0; None where it is unknown.
    """

    lightness: float
    red_green: float
    yellow_blue: float
    lightness_sd: float
    red_green_sd: float
    yellow_blue_sd: float
    mpp: float | None = None


# What is compared as a distribution.
FIGURES = (
    "lightness", "red_green", "yellow_blue", "lightness_sd", "red_green_sd", "yellow_blue_sd",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Looks:
    """How the slides of a collection look, and why others could not be measured."""

    slides: Mapping[str, SlideLook]
    failures: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table: slide, the six figures, mpp."""
        return [
            (
                name,
                *(f"{getattr(look, figure):.1f}" for figure in FIGURES),
                "-" if look.mpp is None else f"{look.mpp:.4g}",
            )
            for name, look in self.slides.items()
        ]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if some slides could not be measured; all others are done."""
        require_none(self.failures, done=len(self.slides))


@dataclass(frozen=True, slots=True)
class Drift:
    """How the slides of one collection differ from those of another.

    Parameters
    ----------
    distances
        Of each figure, Kolmogorov and Smirnov's distance of the two distributions, 0 to 1.
    verdicts
        Of each slide, what is unlike the others, in words; empty where nothing is.
    """

    distances: Mapping[str, float]
    verdicts: Mapping[str, tuple[str, ...]]

    def lines(self) -> list[str]:
        """Sentences for people."""
        far = {name: words for name, words in self.verdicts.items() if words}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in self.distances.items())
        return [
            f"distance of the distributions, 0 to 1: {shown}",
            *(f"{name}: unlike the others: {'; '.join(words)}" for name, words in far.items()),
            f"{len(self.verdicts) - len(far)} of {len(self.verdicts)} slides look like the others",
        ]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)


def measure_looks(collection: Collection, *, progress: Progress) -> Looks:
    """Measure a small picture of each slide; memory does not grow with their size.

    Parameters
    ----------
    collection
        The slides.
    progress
        Advanced by slides.

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
    """Compare slides with those that a model learned from.

    A slide is unlike them in a figure that is further from their median than four deviations, which
    are 1.48 times the median of their absolute differences and 2 units at least; or where its mpp
    differs from their median by more than 20 %.

    Parameters
    ----------
    found
        Slides to judge.
    others
        Slides to judge them by.

    Raises
    ------
    StoreError
        If there is no slide on either side.
    """
    if not found.slides or not others.slides:
        raise StoreError(
            f"got {len(found.slides)} slides to compare with {len(others.slides)}; expected at "
            "least one of both"
        )
    ours, theirs = _values(found), _values(others)
    middle = np.median(theirs, axis=0)
    deviation = np.median(np.abs(theirs - middle), axis=0) * _NORMAL
    deviation = np.maximum(deviation, _LEAST_DEVIATION)
    known = [look.mpp for look in others.slides.values() if look.mpp is not None]
    mpp = float(np.median(known)) if known else None
    verdicts = {}
    for (name, look), row in zip(found.slides.items(), (ours - middle) / deviation, strict=True):
        words = [
            f"{figure} {value:+.1f} deviations"
            for figure, value in zip(FIGURES, row, strict=True)
            if abs(value) > _FAR
        ]
        verdicts[name] = (*words, *_unlike_mpp(look.mpp, mpp))
    distances = {
        figure: float(ks_2samp(ours[:, n], theirs[:, n]).statistic)
        for n, figure in enumerate(FIGURES)
    }
    return Drift(distances, verdicts)


def distribution(stores: Sequence[SlideStore]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each of `FIGURES` over slides, ``(6,)`` each."""
    values = _values(Looks({store.name: _look(store) for store in stores}))
    return values.mean(axis=0), values.std(axis=0)


def _unlike_mpp(own: float | None, others: float | None) -> list[str]:
    if own is None or others is None or max(own / others, others / own) <= _SAME_MPP:
        return []
    return [f"{own:.4g} um per pixel, not {others:.4g}"]


def _values(looks: Looks) -> NDArray[np.float64]:
    """Figures of each slide, ``(n, 6)``."""
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
