"""Owns collections of slides and of predictions, and each slide's store: its image and labels."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Save
from wsi_seg.errors import StoreError, StoreIncompleteError, StoreNotFoundError
from wsi_seg.geometry import Pyramid
from wsi_seg.notebook import SHOWN, collection_html, slide_html
from wsi_seg.reading.resample import read_centred
from wsi_seg.store.info import PredictionInfo, StoreInfo
from wsi_seg.store.layout import label_list, wsi_seg_attributes
from wsi_seg.store.multiscale import Multiscale, open_multiscale
from wsi_seg.store.names import LABELS, METADATA, PARTIAL, PREDICTION_LABEL
from wsi_seg.store.picture import small_picture
from wsi_seg.store.remote import below, is_address, located


@dataclass(frozen=True, slots=True)
class SlideStore:
    """One slide's group: its image, and labels next to it.

    Parameters
    ----------
    path
        Group folder.
    name
        Name of the slide.
    image
        The slide's pixels, or a prediction's probabilities; class ids where only those were saved,
        with what is stored about the prediction.

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
        """What wsi_seg stored about the slide."""
        return self.image.attributes

    @property
    def info(self) -> StoreInfo:
        """What `wsi-seg tile` stored about the slide.

        Raises
        ------
        StoreError
            If a value does not fit, for example because this is a prediction.
        """
        return StoreInfo.from_json(self.attributes, self.path)

    @property
    def prediction(self) -> PredictionInfo:
        """What inference stored about the prediction.

        Raises
        ------
        StoreError
            If a value does not fit, for example because this is a slide.
        """
        return PredictionInfo.from_json(self.attributes, self.path)

    @property
    def saved(self) -> Save:
        """What there is of a prediction."""
        return _saved(self.path, self.attributes)

    @property
    def probabilities(self) -> Multiscale:
        """Probabilities of a prediction, one channel for each class, value / 255.

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
        """Sentence about tiles of a prediction that could not be read; None if all could."""
        if not (unread := self.image.quarantined):
            return None
        return f"{self.name}: {len(unread)} tiles could not be read; they count as background"

    def label_names(self) -> tuple[str, ...]:
        """Names of the labels that are complete, sorted."""
        labels = self.path / LABELS
        return tuple(
            name for name in sorted(label_list(labels)) if below(labels, name, METADATA).is_file()
        )

    def label(self, name: str) -> Multiscale:
        """Open the label of this ``name``, of one id for each pixel.

        Raises
        ------
        StoreError
            If there is no such label; names those that exist. If it has a plane for each class.
        """
        found = self.planes(name)
        if found.channels is not None:
            raise planes_error(self.name, name)
        return found

    def planes(self, name: str) -> Multiscale:
        """Open the label of this ``name`` as it is: with planes where classes overlap.

        Raises
        ------
        StoreError
            If there is no such label; names those that exist.
        """
        if name not in self.label_names():
            known = ", ".join(self.label_names()) or "none"
            raise StoreError(f"slide {self.name}: got label {name!r}; it has: {known}")
        return open_multiscale(below(self.path, LABELS, name))

    def read(
        self,
        *,
        mpp: float,
        centre_um: tuple[float, float],
        size_px: tuple[int, int],
        fill: int | None = None,
    ) -> NDArray[np.uint8]:
        """Read a rectangle of the slide at any resolution; see `read_centred`.

        Examples
        --------
        >>> slide.read(mpp=1.0, centre_um=(2000, 3000), size_px=(512, 512))  # doctest: +SKIP
        """
        return read_centred(
            self.image, name=self.name, mpp=mpp, centre_um=centre_um, size_px=size_px, fill=fill
        )

    def thumbnail(self, longest_px: int = 1024) -> NDArray[np.uint8]:
        """Whole slide as a picture; see `Multiscale.thumbnail`."""
        return self.image.thumbnail(longest_px)

    @property
    def slice_mm(self) -> float | None:
        """Millimetres to the next slice of the volume; None where it is a slice of none."""
        return self.info.slice_mm

    def sibling(self, name: str) -> "SlideStore | None":
        """Open another slide of the same collection; None if there is none of this name."""
        path = below(self.path.parent, name)
        return SlideStore(path, name, open_image(path)) if (path / METADATA).is_file() else None

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        labels = ", ".join(self.label_names()) or "none"
        return f"<SlideStore {self.name}: {self.pyramid.extent}, labels: {labels}>"

    def _repr_html_(self) -> str:
        facts = {"labels": ", ".join(self.label_names()) or "none"}
        return slide_html(self.name, self.pyramid, facts, partial(small_picture, self.image))


def planes_error(slide: str, label: str) -> StoreError:
    """Error about a label with a plane for each class, for what takes one id for each pixel."""
    return StoreError(
        f"slide {slide}: label {label!r} has a plane for each of its classes, which overlap; this "
        "needs one id for each pixel; draw or predict one class at a time, or exclusive ones"
    )


@dataclass(frozen=True, slots=True)
class Stores:
    """Folder of stores: a `Collection` of slides, or `Predictions` of them.

    Parameters
    ----------
    path
        Group folder.
    """

    path: Path

    def names(self) -> tuple[str, ...]:
        """Names of the complete stores, sorted.

        Behind an address they are those that the last command stored.
        """
        if is_address(self.path):
            stored = wsi_seg_attributes(self.path / METADATA).get("slides")
            return tuple(map(str, stored)) if isinstance(stored, list) else ()
        return tuple(
            sorted(
                child.name
                for child in self.path.iterdir()
                if not child.name.startswith(".") and (child / METADATA).is_file()
            )
        )

    def unfinished(self) -> tuple[str, ...]:
        """Names of the stores whose writing has begun and not ended, sorted."""
        if is_address(self.path):
            return ()
        folder = self.path / PARTIAL
        if not folder.is_dir():
            return ()
        return tuple(
            sorted(child.name for child in folder.iterdir() if not child.name.startswith("."))
        )

    def __getitem__(self, name: str) -> SlideStore:
        path = below(self.path, name)
        if name not in self:
            if name in self.unfinished():
                raise StoreIncompleteError(
                    f"{self.path}: slide {name} is unfinished; repeat the command that writes it"
                )
            known = ", ".join(self.names()) or "none"
            raise StoreNotFoundError(f"{self.path}: got slide {name!r}; it has: {known}")
        return SlideStore(path=path, name=name, image=open_image(path))

    def __contains__(self, name: object) -> bool:
        """Whether there is a complete store of this name, without listing all of them."""
        if not isinstance(name, str):
            return False
        if is_address(self.path) or name in ("", PARTIAL) or Path(name).name != name:
            return name in self.names()
        return (self.path / name / METADATA).is_file()

    def __iter__(self) -> Iterator[SlideStore]:
        return (self[name] for name in self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}: {len(self)} slides>"

    def _repr_html_(self) -> str:
        images = ((name, self[name].image) for name in self.names()[:SHOWN])
        slides = ((name, image.pyramid, partial(small_picture, image)) for name, image in images)
        return collection_html(str(self.path), slides, len(self))


class Collection(Stores):
    """Folder of slides, at ``path``. Made by `open_collection`.

    Examples
    --------
    >>> slides = open_collection("store.zarr")  # doctest: +SKIP
    >>> slides["slide-1"].pyramid.mpp, len(slides)  # doctest: +SKIP
    (0.25, 12)
    """

    __slots__ = ()


class Predictions(Stores):
    """Folder of predictions of slides, at ``path``. Made by `open_predictions`.

    Examples
    --------
    >>> predictions = open_predictions("pred.zarr")  # doctest: +SKIP
    >>> predictions["slide-1"].label("prediction").to_dask()  # doctest: +SKIP
    """

    __slots__ = ()

    def require_names(self) -> tuple[str, ...]:
        """Names of the predictions, sorted.

        Raises
        ------
        StoreError
            If there are none.
        """
        if not (names := self.names()):
            raise StoreError(f"{self.path} holds no predictions; run `wsi-seg infer` first")
        return names


def open_image(path: Path) -> Multiscale:
    """Open what a slide's group shows: see `SlideStore.image`.

    Raises
    ------
    StoreError
        If it is missing, damaged or not one of ours.
    """
    stored = wsi_seg_attributes(path / METADATA)
    if _saved(path, stored) != "labels":
        return open_multiscale(path)
    return replace(
        open_multiscale(path / LABELS / PREDICTION_LABEL), name=path.name, attributes=stored
    )


def _saved(path: Path, attributes: Mapping[str, object]) -> Save:
    return PredictionInfo.from_json({"saved": attributes.get("saved", "both")}, path).saved


def open_collection(path: Path | str) -> Collection:
    """Open a collection of slides that `wsi-seg tile` made.

    Parameters
    ----------
    path
        Its folder, or an address such as ``s3://bucket/store.zarr`` (then it is read only).

    Returns
    -------
    Collection
        Gives each slide's store by its name.

    Raises
    ------
    StoreNotFoundError
        If there is nothing at the path.
    StoreIncompleteError
        If it holds unfinished stores only.
    StoreError
        If it holds predictions, is something else, or is an address that cannot be read.

    Examples
    --------
    >>> slides = open_collection("store.zarr")  # doctest: +SKIP
    >>> [slide.name for slide in slides]  # doctest: +SKIP
    ['a', 'b']
    """
    slides = Collection(_located(path, "slides", "wsi-seg tile SLIDES --out"))
    _refuse(slides, "prediction", "predictions; expected slides, which `wsi-seg tile` makes")
    return slides


def open_predictions(path: Path | str) -> Predictions:
    """Open a collection of predictions that `wsi-seg infer` made.

    Parameters
    ----------
    path
        Its folder, or an address such as ``s3://bucket/pred.zarr`` (then it is read only).

    Returns
    -------
    Predictions
        Gives each prediction by the name of its slide.

    Raises
    ------
    StoreNotFoundError
        If there is nothing at the path.
    StoreIncompleteError
        If it holds unfinished predictions only.
    StoreError
        If it holds slides, is something else, or is an address that cannot be read.

    Examples
    --------
    >>> predictions = open_predictions("pred.zarr")  # doctest: +SKIP
    >>> predictions["a"].prediction.classes.names  # doctest: +SKIP
    ('gland',)
    """
    predictions = Predictions(_located(path, "predictions", "wsi-seg infer SLIDES --out"))
    _refuse(predictions, "slide", "slides; expected predictions, which `wsi-seg infer` makes")
    return predictions


def open_stores(path: Path | str) -> Stores:
    """Open a collection, be it of slides or of predictions.

    Raises
    ------
    StoreNotFoundError, StoreIncompleteError, StoreError
        As of `open_collection`.
    """
    return Stores(_located(path, "slides or predictions", "wsi-seg tile SLIDES --out"))


def _refuse(stores: Stores, kind: str, mistake: str) -> None:
    """Refuse stores of another kind; all were made by one verb, so the first one tells."""
    found = None
    for name in stores.names()[:1]:
        with suppress(StoreError):  # damage is reported where that store is opened
            found = wsi_seg_attributes(stores.path / name / METADATA).get("kind")
    if found == kind:
        raise StoreError(
            f"{stores.path} holds {mistake}; where both are asked for, predictions come first"
        )


def _located(path: Path | str, content: str, verb: str) -> Path:
    """Path of a collection that can be read; the verb would make it."""
    path = located(Path(path) if isinstance(path, str) else path)
    if is_address(path):
        return _reachable(path, content)
    if not path.exists():
        raise StoreNotFoundError(f"there is no {path}; make it with `{verb} {path}`")
    file = path / METADATA
    if not file.is_file():
        made = " ".join(verb.split()[:2])
        raise StoreError(
            f"{path} is not a collection of {content}; expected a folder written by `{made}`"
        )
    if wsi_seg_attributes(file).get("kind") != "collection":
        raise StoreError(f"{path} is a zarr group of another kind; expected a collection")
    stores = Stores(path)
    if not stores.names() and stores.unfinished():
        raise StoreIncompleteError(
            f"{path} holds unfinished stores only ({', '.join(stores.unfinished())}); "
            "repeat the command that writes them"
        )
    return path


def _reachable(path: Path, content: str) -> Path:
    """Address of a collection, checked with one request."""
    try:
        ours = wsi_seg_attributes(path / METADATA)
    except StoreIncompleteError as error:
        raise StoreNotFoundError(
            f"there is no collection of {content} at {path}; check the address"
        ) from error
    if ours.get("kind") != "collection":
        raise StoreError(f"{path} is a zarr group of another kind; expected a collection")
    return path
