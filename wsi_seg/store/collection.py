"""Owns collections of slides and of predictions."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self

from wsi_seg.counts import counted, list_names
from wsi_seg.errors import StoreError, StoreIncompleteError, StoreNotFoundError
from wsi_seg.files.object_path import REQUESTS, object_path, place
from wsi_seg.files.shared import names_in
from wsi_seg.limits import Limits, limits
from wsi_seg.notebook import SHOWN, collection_html
from wsi_seg.store.group import wsi_seg_attributes
from wsi_seg.store.names import METADATA, PARTIAL
from wsi_seg.store.picture import small_picture
from wsi_seg.store.slide_list import slides_in
from wsi_seg.store.slide_store import SlideStore, open_image


@dataclass(frozen=True, slots=True)
class Stores:
    """Folder of stores: a `Collection` of slides, or `Predictions` of them.

    Parameters
    ----------
    path
        Group folder.
    chosen
        Names of the stores to include; None for all. See `only`.
    """

    path: Path
    chosen: frozenset[str] | None = None

    def only(self, names: Iterable[str]) -> Self:
        """Return a copy that is restricted to some of the stores.

        Parameters
        ----------
        names
            Names of the stores; names that do not exist are ignored.

        Examples
        --------
        >>> open_collection("store.zarr").only(["a"]).names()  # doctest: +SKIP
        ('a',)
        """
        return replace(self, chosen=frozenset(names))

    def names(self) -> tuple[str, ...]:
        """Return the sorted names of the complete stores.

        In object stores these are the names that the last command stored.
        """
        every = self._all_names()
        return every if self.chosen is None else tuple(n for n in every if n in self.chosen)

    def _all_names(self) -> tuple[str, ...]:
        if object_path(self.path) is not None:
            stored = wsi_seg_attributes(self.path / METADATA).get("slides")
            return tuple(map(str, stored)) if isinstance(stored, list) else ()
        return tuple(sorted(slides_in(self.path)))

    def unfinished(self) -> tuple[str, ...]:
        """Return the sorted names of the stores that are still unfinished."""
        names = names_in(self.path / PARTIAL)
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def __getitem__(self, name: str) -> SlideStore:
        if name not in self:
            if name in self.unfinished():
                raise StoreIncompleteError(
                    f"{self.path}: slide {name} is unfinished; repeat the command that writes it"
                )
            known = list_names(self.names())
            raise StoreNotFoundError(f"{self.path}: got slide {name!r}; it has: {known}")
        return self._open(name)

    def _open(self, name: str, bound: Limits | None = None) -> SlideStore:
        path = self.path / name
        return SlideStore(path=path, name=name, image=open_image(path, bound))

    def __contains__(self, name: object) -> bool:
        """Return whether a complete store of this name exists, without listing all stores."""
        if not isinstance(name, str) or not (self.chosen is None or name in self.chosen):
            return False
        if name[:1] in ("", ".") or Path(name).name != name:  # as `slides_in`
            return False
        file = self.path / name / METADATA
        if object_path(file) is not None:
            return file.is_file()
        return os.path.isfile(file)  # noqa: PTH113 (False for a name that no file can have)

    def __iter__(self) -> Iterator[SlideStore]:
        bound = limits()
        if object_path(self.path) is None:
            yield from (self._open(name, bound) for name in self.names())
            return
        with ThreadPoolExecutor(REQUESTS) as threads:
            yield from threads.map(lambda name: self._open(name, bound), self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}: {counted(len(self), 'slide')}>"

    def _repr_html_(self) -> str:
        images = ((name, self[name].image) for name in self.names()[:SHOWN])
        slides = ((name, image.pyramid, partial(small_picture, image)) for name, image in images)
        return collection_html(str(self.path), slides, len(self))


class Collection(Stores):
    """Folder of slides, at ``path``; created by `open_collection`.

    With ``chosen`` only those slides are included; see `only`.

    Examples
    --------
    >>> slides = open_collection("store.zarr")  # doctest: +SKIP
    >>> slides["slide-1"].pyramid.mpp, len(slides)  # doctest: +SKIP
    (0.25, 12)
    """

    __slots__ = ()


class Predictions(Stores):
    """Folder of predictions of slides, at ``path``; created by `open_predictions`.

    With ``chosen`` only those slides are included; see `only`.

    Examples
    --------
    >>> predictions = open_predictions("pred.zarr")  # doctest: +SKIP
    >>> predictions["slide-1"].label("prediction").to_dask()  # doctest: +SKIP
    """

    __slots__ = ()

    def require_names(self) -> tuple[str, ...]:
        """Return the sorted names of the predictions.

        Raises
        ------
        StoreError
            If there are no predictions.
        """
        if not (names := self.names()):
            raise StoreError(f"{self.path} holds no predictions; run `wsi-seg infer` first")
        return names


def open_collection(path: Path | str) -> Collection:
    """Open a collection of slides made by `wsi-seg tile`.

    Parameters
    ----------
    path
        Its folder, or an address such as ``s3://bucket/store.zarr``.

    Returns
    -------
    Collection
        Mapping of slide names to stores.

    Raises
    ------
    StoreNotFoundError
        If the path does not exist.
    StoreIncompleteError
        If all of its stores are unfinished.
    StoreError
        If it contains predictions, is not a collection, or is an address that cannot be read.

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
    """Open a collection of predictions made by `wsi-seg infer`.

    Parameters
    ----------
    path
        Its folder, or an address such as ``s3://bucket/pred.zarr``.

    Returns
    -------
    Predictions
        Mapping of slide names to predictions.

    Raises
    ------
    StoreNotFoundError
        If the path does not exist.
    StoreIncompleteError
        If all of its predictions are unfinished.
    StoreError
        If it contains slides, is not a collection, or is an address that cannot be read.

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
    """Open a collection of slides or of predictions.

    Raises
    ------
    StoreNotFoundError, StoreIncompleteError, StoreError
        As for `open_collection`.
    """
    return Stores(_located(path, "slides or predictions", "wsi-seg tile SLIDES --out"))


def _refuse(stores: Stores, kind: str, mistake: str) -> None:
    """Raise an error for stores of another kind; all are of one kind, so one is checked."""
    found = None
    # Listing thousands of stores takes seconds on network file systems.
    every = stores.names() if object_path(stores.path) is not None else slides_in(stores.path)
    for name in islice(every, 1):
        with suppress(StoreError):  # reported when that store is opened
            found = wsi_seg_attributes(stores.path / name / METADATA).get("kind")
    if found == kind:
        raise StoreError(
            f"{stores.path} holds {mistake}; where both are asked for, predictions come first"
        )


def _located(path: Path | str, content: str, verb: str) -> Path:
    """Return the path of a collection that can be read; errors suggest the verb that makes it."""
    path = place(path)
    if object_path(path) is not None:
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
    if stores.unfinished() and not stores.names():
        raise StoreIncompleteError(
            f"{path} holds unfinished stores only ({', '.join(stores.unfinished())}); "
            "repeat the command that writes them"
        )
    return path


def _reachable(path: Path, content: str) -> Path:
    """Return the address of a collection, checked with one request."""
    try:
        ours = wsi_seg_attributes(path / METADATA)
    except StoreIncompleteError as error:
        raise StoreNotFoundError(
            f"there is no collection of {content} at {path}; check the address"
        ) from error
    if ours.get("kind") != "collection":
        raise StoreError(f"{path} is a zarr group of another kind; expected a collection")
    return path
