"""Owns the store of one slide or prediction: its image and labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Save
from wsi_seg.counts import counted
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Pyramid
from wsi_seg.limits import Limits, limits
from wsi_seg.notebook import picture_png, slide_html
from wsi_seg.reading.resample import read_centred
from wsi_seg.store.arrays import read_document
from wsi_seg.store.group import attributes_of, label_list
from wsi_seg.store.info import SAVED, PredictionInfo, StoreInfo
from wsi_seg.store.multiscale import Multiscale, multiscale_of, open_multiscale
from wsi_seg.store.names import LABELS, METADATA, PREDICTION_LABEL
from wsi_seg.store.picture import small_picture


@dataclass(frozen=True, slots=True)
class SlideStore:
    """Zarr group of one slide: its image and labels.

    Parameters
    ----------
    path
        Group folder.
    name
        Name of the slide.
    image
        Pixels of the slide, or probabilities of a prediction; if only class ids were saved, these,
        with the attributes of the prediction.

    Examples
    --------
    >>> slide = open_collection("store.zarr")["slide-1"]  # doctest: +SKIP
    >>> slide.label_names()  # doctest: +SKIP
    ('annotations', 'tissue')
    >>> slide.label("annotations")[1000:1512, 2000:2512].shape  # doctest: +SKIP
    (512, 512)
    """

    path: Path
    name: str
    image: Multiscale

    @property
    def pyramid(self) -> Pyramid:
        """Levels of the image."""
        return self.image.pyramid

    @property
    def attributes(self) -> Mapping[str, object]:
        """Attributes that wsi_seg stored for the slide."""
        return self.image.attributes

    @property
    def info(self) -> StoreInfo:
        """Validated attributes that `wsi-seg tile` stored for the slide.

        Raises
        ------
        StoreError
            If a value is invalid, for example because this is a prediction.
        """
        return StoreInfo.from_json(self.attributes, self.path)

    @property
    def prediction(self) -> PredictionInfo:
        """Validated attributes that inference stored for the prediction.

        Raises
        ------
        StoreError
            If a value is invalid, for example because this is a slide.
        """
        return PredictionInfo.from_json(self.attributes, self.path)

    @property
    def saved(self) -> Save:
        """Whether a prediction has probabilities, labels or both."""
        return _saved(self.path, self.attributes)

    @property
    def probabilities(self) -> Multiscale:
        """Probabilities of a prediction: one channel per class, uint8, value / 255.

        Raises
        ------
        StoreError
            If only class ids were saved.
        """
        if self.saved == "labels":
            raise StoreError(
                f"slide {self.name}: got a prediction of class ids alone; expected probabilities "
                "too; predict it again with `wsi-seg infer --save both --overwrite`"
            )
        return self.image

    @property
    def warning(self) -> str | None:
        """Warning about tiles of a prediction that could not be read; None if all were read."""
        if not (unread := self.image.quarantined):
            return None
        tiles = counted(len(unread), "tile")
        return f"{self.name}: {tiles} could not be read; background is assumed there"

    def label_names(self) -> tuple[str, ...]:
        """Return the sorted names of the complete labels."""
        labels = self.path / LABELS
        return tuple(
            name for name in sorted(label_list(labels)) if (labels / name / METADATA).is_file()
        )

    def label(self, name: str) -> Multiscale:
        """Open the label called ``name``, which has one class id per pixel.

        Raises
        ------
        StoreError
            If there is no such label (the message lists the labels), or it has a plane per class.
        """
        found = self.planes(name)
        if found.channels is not None:
            raise planes_error(self.name, name)
        return found

    def planes(self, name: str) -> Multiscale:
        """Open the label called ``name``, which may have one plane per class if classes overlap.

        Raises
        ------
        StoreError
            If there is no such label; the message lists the labels.
        """
        if name not in self.label_names():
            known = ", ".join(self.label_names()) or "none"
            raise StoreError(f"slide {self.name}: got label {name!r}; it has: {known}")
        return open_multiscale(self.path / LABELS / name)

    def read(
        self,
        *,
        mpp: float,
        centre_um: tuple[float, float],
        size_px: tuple[int, int],
        fill: int | None = None,
    ) -> NDArray[np.uint8]:
        """Read a rectangle of the slide at any resolution, ``(H, W, C)`` uint8; see `read_centred`.

        Examples
        --------
        >>> slide.read(mpp=1.0, centre_um=(2000, 3000), size_px=(512, 512))  # doctest: +SKIP
        """
        return read_centred(
            self.image, name=self.name, mpp=mpp, centre_um=centre_um, size_px=size_px, fill=fill
        )

    def thumbnail(self, longest_px: int = 1024) -> NDArray[np.uint8]:
        """Return the whole slide as ``(H, W, 3)`` uint8 RGB; see `Multiscale.thumbnail`."""
        return self.image.thumbnail(longest_px)

    @property
    def slice_mm(self) -> float | None:
        """Millimetres to the next slice, if it is a slice of a volume; else None."""
        return self.info.slice_mm

    def sibling(self, name: str) -> "SlideStore | None":
        """Open the slide ``name`` of the same collection; return None if it does not exist."""
        path = self.path.parent / name
        return SlideStore(path, name, open_image(path)) if (path / METADATA).is_file() else None

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        labels = ", ".join(self.label_names()) or "none"
        return f"<SlideStore {self.name}: {self.pyramid.extent}, labels: {labels}>"

    def _repr_html_(self) -> str:
        facts = {"labels": ", ".join(self.label_names()) or "none"}
        return slide_html(self.name, self.pyramid, facts, partial(small_picture, self.image))

    def _repr_png_(self) -> bytes | None:
        return picture_png(partial(small_picture, self.image))


def planes_error(slide: str, label: str) -> StoreError:
    """Return the error for a label with one plane per class where one id per pixel is required."""
    return StoreError(
        f"slide {slide}: label {label!r} has a plane for each of its classes, which overlap; this "
        "needs one id for each pixel; draw or predict one class at a time, or exclusive ones"
    )


def open_image(path: Path, bound: Limits | None = None) -> Multiscale:
    """Open the image of a slide's group; see `SlideStore.image`.

    Parameters
    ----------
    path
        Group folder.
    bound
        Limits to apply; None for the current ones.

    Raises
    ------
    StoreError
        If the group is missing, damaged or not written by wsi_seg.
    """
    bound = bound or limits()
    document, version = read_document(path / METADATA, bound)
    stored = attributes_of(document, path)
    if _saved(path, stored) != "labels":
        return multiscale_of(path, document, version, bound)
    return replace(
        open_multiscale(path / LABELS / PREDICTION_LABEL), name=path.name, attributes=stored
    )


def _saved(path: Path, attributes: Mapping[str, object]) -> Save:
    saved = attributes.get("saved", "both")
    known = next((one for one in SAVED if one == saved), None)
    return known or PredictionInfo.from_json({"saved": saved}, path).saved  # raises StoreError
