"""Owns reading patches of one slide: image and ground truth at the resolution of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import DOUBT, IGNORE, ClassTable
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent
from wsi_seg.reading.readable import Readable
from wsi_seg.reading.resample import Scale, read_image, read_label
from wsi_seg.reading.view import View
from wsi_seg.store import Multiscale, SlideStore, open_multiscale
from wsi_seg.store.class_view import plane_of

# Subgroup of a label that holds its probabilities.
SOFT = "soft"

# Sources kept open: each takes about 25 kB, and a run may have 150,000 slices.
_MAX_OPEN = 2000

# Label of one class, and the lookup table from its class ids to 0, 1 and 255.
Plane = tuple[Multiscale, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class PatchSource:
    """Reader of patches from one slide and its ground truth.

    Parameters
    ----------
    image, label
        Pixels and class ids.
    scale
        Resolution of the patches.
    recode
        ``(256,)`` uint8 lookup table from the label's class ids to the model's; other classes
        become background.
    planes
        For overlapping classes: the label of each of the model's classes, with its lookup table;
        None for a class that is not annotated, whose pixels are ignored.
    soft
        Probabilities (value / 255) as soft labels in place of ids, one channel per class of the
        model; None if labels are hard.
    doubt
        Weight of each pixel is 1 - value / 255; None if all pixels have weight 1.
    """

    image: Readable
    label: Multiscale
    scale: Scale
    recode: NDArray[np.uint8]
    planes: tuple[Plane | None, ...] = ()
    soft: Multiscale | None = None
    doubt: Multiscale | None = None

    @classmethod
    def of(cls, store: SlideStore, label: str, *, classes: ClassTable, view: View) -> "PatchSource":
        """Open the source of a slide for the view of a model.

        Raises
        ------
        StoreError
            If the slide has no such label, the label lacks one of the classes (all of them, if
            they overlap), or the slide lacks the context slices of the view.
        ResolutionError
            If the slide cannot be read at the mpp of the view.
        """
        truth = _truth(store, label, classes)
        return cls(
            image=view.image(store),
            label=truth,
            scale=view.scale(store.pyramid, name=store.name),
            recode=_recode(store.name, truth, classes),
            planes=_planes(truth, classes),
            soft=_soft(truth, classes),
            doubt=_inside(truth, DOUBT),
        )

    def patch(
        self, centre_y: float, centre_x: float, side: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read a square patch around a centre given in level-0 pixels.

        Past the slide's border, image and label are mirrored about the centre of the last pixel.

        Parameters
        ----------
        centre_y, centre_x
            Centre in level-0 pixels.
        side
            Side of the patch in pixels of ``scale``.

        Returns
        -------
        image : NDArray[np.uint8]
            ``(side, side, C)``.
        label : NDArray[np.uint8]
            ``(side, side)`` class ids of the model; with ``soft`` or ``doubt``,
            ``(side, side, planes)``: ids, probabilities of the classes, doubt. Overlapping classes
            have a plane each in place of ids: 1, 0, or 255 to ignore.
        """
        window = self._window(centre_y, centre_x, side)
        image = read_image(
            self.image,
            self.scale,
            window.y,
            window.x,
            height=window.height,
            width=window.width,
        )
        return window.shown(image), self._truth(window)

    def truth(self, centre_y: float, centre_x: float, side: int) -> NDArray[np.uint8]:
        """Read the label of a patch without its image; see `patch`."""
        return self._truth(self._window(centre_y, centre_x, side))

    def masks(self, extent: Extent) -> list[NDArray[np.bool_]]:
        """Read the mask of each class over the whole slide, ``(H, W)`` of ``extent``."""
        size = {"height": extent.height, "width": extent.width}
        if not self.planes:
            ids = self.recode[read_label(self.label, extent, 0, 0, **size)]
            return [ids == value for value in range(1, int(self.recode[:IGNORE].max()) + 1)]
        return [
            np.zeros((extent.height, extent.width), dtype=bool)
            if plane is None
            else plane[1][read_label(plane[0], extent, 0, 0, **size)] == 1
            for plane in self.planes
        ]

    def _window(self, centre_y: float, centre_x: float, side: int) -> "_Window":
        level0, extent = self.image.pyramid.extent, self.scale.extent
        return _Window(
            _mirrored(centre_y * extent.height / level0.height, side, extent.height),
            _mirrored(centre_x * extent.width / level0.width, side, extent.width),
        )

    def _truth(self, window: "_Window") -> NDArray[np.uint8]:
        ids = self._planes(window) if self.planes else self._ids(window)
        more = [m for m in (self.soft, self.doubt) if m is not None]
        if more:
            planes = [self._read(one, window) for one in more]
            planes = [one.reshape(window.height, window.width, -1) for one in (ids, *planes)]
            ids = np.concatenate(planes, axis=-1)
        return window.shown(ids)

    def _ids(self, window: "_Window") -> NDArray[np.uint8]:
        return self.recode.take(self._read(self.label, window))

    def _planes(self, window: "_Window") -> NDArray[np.uint8]:
        """Read the plane of each class, ``(h, w, C)``."""
        ignored = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
        return np.stack(
            [
                ignored if plane is None else plane[1].take(self._read(plane[0], window))
                for plane in self.planes
            ],
            axis=-1,
        )

    def _read(self, label: Multiscale, window: "_Window") -> NDArray[np.uint8]:
        return read_label(
            label,
            self.scale.extent,
            window.y,
            window.x,
            height=window.height,
            width=window.width,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Slide rows and columns of a patch, in the order of the patch, each ``(side,)``."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @property
    def y(self) -> int:
        return int(self.rows.min())

    @property
    def x(self) -> int:
        return int(self.columns.min())

    @property
    def height(self) -> int:
        return int(self.rows.max()) - self.y + 1

    @property
    def width(self) -> int:
        return int(self.columns.max()) - self.x + 1

    def shown(self, block: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reorder a block, read from the lowest to the highest row and column, into the patch."""
        ascending = (np.diff(self.rows) == 1).all() and (np.diff(self.columns) == 1).all()
        if ascending:
            return block
        return block[np.ix_(self.rows - self.y, self.columns - self.x)]


def class_mask(label: NDArray[np.uint8], class_id: int, classes: ClassTable) -> NDArray[np.bool_]:
    """Return the mask of one class in a label from `PatchSource.patch`, ``(side, side)``."""
    if classes.planes is not None:
        found: NDArray[np.bool_] = label[..., class_id - 1] == 1
    else:
        found = (label if label.ndim == 2 else label[..., 0]) == class_id
    return found


def _mirrored(centre: float, side: int, length: int) -> NDArray[np.int64]:
    """Return the pixels of a patch along one axis, reflected at the ends of the slide."""
    past = np.abs(round(centre - side / 2) + np.arange(side))
    turn = max(1, 2 * (length - 1))
    found: NDArray[np.int64] = np.abs((past + length - 1) % turn - (length - 1))
    return found


def _truth(store: SlideStore, label: str, classes: ClassTable) -> Multiscale:
    """Open the label of a slide, with one id per pixel unless classes overlap."""
    if classes.planes is not None:
        return store.planes(label)
    if len(classes) == 1:
        return plane_of(store.planes(label), next(iter(classes)))
    return store.label(label)


def _recode(slide: str, label: Multiscale, classes: ClassTable) -> NDArray[np.uint8]:
    known = label.classes
    missing = classes.absent_from(known)
    # Overlapping classes may be annotated on some slides only.
    if missing and (classes.planes is None or not classes.recoding(known)[:IGNORE].any()):
        raise StoreError(
            f"slide {slide!r}: label {label.name!r} has classes {', '.join(known.names)}; "
            f"expected {', '.join(missing)} too; check the classes of the recipe"
        )
    return classes.recoding(known)


def _planes(label: Multiscale, classes: ClassTable) -> tuple[Plane | None, ...]:
    """Open the label of each class, if classes overlap."""
    found: list[Plane | None] = []
    for entry in classes if classes.planes is not None else ():
        alone = ClassTable.named([entry.name], merged=[entry.merged])
        if alone.absent_from(label.classes):
            found.append(None)
        else:
            own = plane_of(label, entry)
            found.append((own, alone.recoding(own.classes)))
    return tuple(found)


def _soft(label: Multiscale, classes: ClassTable) -> Multiscale | None:
    """Open the probabilities of a label, if it has any."""
    soft = _inside(label, SOFT)
    if soft is None:
        return None
    names = soft.classes.names if soft.names_classes else ()
    if names != classes.names:
        raise StoreError(
            f"{soft.path} has probabilities of {', '.join(names) or 'no class'}; expected "
            f"{', '.join(classes.names)}; run `wsi-seg pseudo` again"
        )
    return soft


def _inside(label: Multiscale, name: str) -> Multiscale | None:
    """Open a subgroup of a label, if it exists."""
    folder = label.path / name
    return open_multiscale(folder) if (folder / "zarr.json").is_file() else None


class PatchSources(Sequence[PatchSource]):
    """Sources of slides, opened lazily; the most recently used stay open.

    Open sources are not pickled: each process opens its own.

    Parameters
    ----------
    stores
        The slides.
    label
        Name of the label used as ground truth.
    classes, view
        See `PatchSource.of`.
    """

    def __init__(
        self, stores: Sequence[SlideStore], label: str, *, classes: ClassTable, view: View
    ) -> None:
        self._stores, self._label = tuple(stores), label
        self._classes, self._view = classes, view
        self._open: dict[int, PatchSource] = {}

    def __len__(self) -> int:
        return len(self._stores)

    @overload
    def __getitem__(self, number: int) -> PatchSource: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[PatchSource]: ...
    def __getitem__(self, number: int | slice) -> PatchSource | Sequence[PatchSource]:
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        store = self._stores[number]
        source = self._open.pop(number, None) or PatchSource.of(
            store, self._label, classes=self._classes, view=self._view
        )
        if len(self._open) >= _MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._open[number] = source  # at the end: the first entry is the least recently used
        return source

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self._stores, self._label, self._classes, self._view)


def _rebuild(
    stores: Sequence[SlideStore], label: str, classes: ClassTable, view: View
) -> PatchSources:
    return PatchSources(stores, label, classes=classes, view=view)
