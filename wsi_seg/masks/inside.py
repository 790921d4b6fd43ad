"""Owns restricting commands to a part of slides: a box, polygons, or an annotated class.

Images are masked, not cropped: pixels outside count as empty, and positions stay those of the
slide.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize as burn
from rasterio.transform import Affine

from wsi_seg.annotations import read_annotations
from wsi_seg.classes import IGNORE
from wsi_seg.errors import ConfigError, StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.reading.boxes import box_sums
from wsi_seg.reading.readable import destination
from wsi_seg.reading.resample import read_label
from wsi_seg.store import Multiscale, SlideStore

# Label that contains the classes of ``--inside``.
_LABEL = "annotations"

# Number of pixels along a tile's side when it is searched for a class.
_TILE_PX = 64

# Tolerance in level-0 pixels.
_TOLERANCE = 1e-6

_Area = shapely.Polygon | shapely.MultiPolygon


class Labelled(Protocol):
    """The part of a slide that is needed: its name and its labels."""

    @property
    def name(self) -> str:
        """Name of the slide."""

    def label_names(self) -> tuple[str, ...]:
        """Return the names of the labels."""

    def label(self, name: str) -> Multiscale:
        """Open a label with one id per pixel."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Part of each slide to which a command is restricted.

    Parameters
    ----------
    description
        Text that settings record; equal for equal parts.
    area
        Polygons ``(x, y)`` in level-0 pixels; None for no restriction to an area.
    class_name
        Required class in the label ``annotations``; None for no restriction to a class.

    Examples
    --------
    >>> inside = Inside.parse(bbox="100,0,50,20")
    >>> inside.rows(None, Extent(height=40, width=200), Extent(height=20, width=100)).sum()
    np.int64(250)
    """

    description: str
    area: _Area | None = None
    class_name: str | None = None

    @classmethod
    def parse(cls, inside: str | None = None, bbox: str | None = None) -> "Inside":
        """Parse a class or a GeoJSON file, and a box; if both are given, their intersection.

        Parameters
        ----------
        inside
            Class in the label ``annotations``, or path of a GeoJSON file whose polygons apply to
            every slide.
        bbox
            ``X,Y,WIDTH,HEIGHT`` in level-0 pixels.

        Raises
        ------
        ConfigError
            If the box is not valid, or the file has no polygons.
        AnnotationError
            If the file cannot be read.
        """
        said, name = list[str](), None
        area: _Area | None = None
        if bbox is not None:
            x, y, width, height = _numbers(bbox)
            area = shapely.box(x, y, x + width, y + height)
            said.append(f"box {x},{y},{width},{height}")
        if inside is not None and inside.lower().endswith((".geojson", ".json", ".geojson.gz")):
            drawn, digest = _polygons(Path(inside))
            area = drawn if area is None else _polygonal(shapely.intersection(area, drawn), inside)
            said.append(f"polygons {digest}")
        elif inside is not None:
            name = inside
            said.append(f"class {inside}")
        return cls(" and ".join(said), area, name)

    def rows(
        self,
        slide: Labelled | None,
        full: Extent,
        extent: Extent,
        region: Region | None = None,
        *,
        touched: bool = False,
    ) -> NDArray[np.bool_]:
        """Return which pixels of a slide are inside, by the position of their centres.

        Parameters
        ----------
        slide
            Slide with the label; only needed for a class.
        full
            Size of the slide's level 0.
        extent
            Size of the slide at the requested resolution.
        region
            Region to return, in pixels of ``extent``; None is the whole slide.
        touched
            Whether pixels that are only partly inside the area also count as inside.

        Returns
        -------
        NDArray[np.bool_]
            ``(region.height, region.width)``; True inside.

        Raises
        ------
        StoreError
            If the slide does not have the label, or the label does not have the class.
        """
        part = extent.region() if region is None else region
        found = np.ones((part.height, part.width), dtype=np.bool_)
        if self.area is not None:
            tall, wide = full.height / extent.height, full.width / extent.width
            transform = Affine(wide, 0, part.x * wide, 0, tall, part.y * tall)
            drawn = burn(
                [(self.area, 1)],
                found.shape,
                transform=transform,
                all_touched=touched,
                dtype="uint8",
            )
            found &= drawn > 0
        if self.class_name is not None:
            label = self._label(slide)
            ids = read_label(label, extent, part.y, part.x, height=part.height, width=part.width)
            found &= ids == label.classes.id_of(self.class_name)
        return found

    def touched(
        self,
        slide: Labelled | None,
        full: Extent,
        extent: Extent,
        ys: Sequence[int],
        xs: Sequence[int],
        tile: Extent,
    ) -> NDArray[np.bool_]:
        """Return which tiles are at least partly inside; memory holds one row of tiles.

        Parameters
        ----------
        slide, full, extent
            See `rows`.
        ys, xs
            Top of each row of tiles, and left of each column, in pixels of ``extent``.
        tile
            Size of a tile, in pixels of ``extent``.

        Returns
        -------
        NDArray[np.bool_]
            ``(len(ys), len(xs))``. For a class, structures smaller than 1/64 of a tile may be
            missed.
        """
        found = np.ones((len(ys), len(xs)), dtype=np.bool_)
        if self.area is not None:
            tall, wide = full.height / extent.height, full.width / extent.width
            shapely.prepare(self.area)
            left = np.asarray(xs) * wide
            top = np.asarray(ys)[:, None] * tall
            # Shrink the boxes slightly: tiles that only share an edge with the area are outside.
            height, width = tile.height * tall - _TOLERANCE, tile.width * wide - _TOLERANCE
            for row, y in enumerate(top):
                boxes = shapely.box(left + _TOLERANCE, y + _TOLERANCE, left + width, y + height)
                found[row] = shapely.intersects(self.area, boxes)
        if self.class_name is not None:
            found &= self._touched_class(slide, extent, ys, xs, tile)
        return found

    def _touched_class(
        self,
        slide: Labelled | None,
        extent: Extent,
        ys: Sequence[int],
        xs: Sequence[int],
        tile: Extent,
    ) -> NDArray[np.bool_]:
        """Return which tiles contain the class, in a subsampled label padded by one pixel."""
        step = max(1, min(tile.height, tile.width) // _TILE_PX)
        small = Extent(height=-(-extent.height // step), width=-(-extent.width // step))
        label = Inside(self.description, None, self.class_name)
        first = np.maximum(0, np.asarray(xs) // step - 1)
        after = np.minimum(small.width, -(-(np.asarray(xs) + tile.width) // step) + 1)
        found = np.zeros((len(ys), len(xs)), dtype=np.bool_)
        for row, y in enumerate(ys):
            top = max(0, y // step - 1)
            end = min(small.height, -(-(y + tile.height) // step) + 1)
            rows = Region(level=0, y=top, x=0, height=end - top, width=small.width)
            inside = label.rows(slide, small, small, rows)
            spans = np.array([0]), np.array([end - top])
            found[row] = box_sums(inside, spans, (first, after))[0] > 0
        return found

    def _label(self, slide: Labelled | None) -> Multiscale:
        if slide is None:
            raise StoreError(
                f"got class {self.class_name!r} without the slides, which have the annotations; "
                "expected their collection"
            )
        label = slide.label(_LABEL)
        if self.class_name not in label.classes.names:
            raise StoreError(
                f"slide {slide.name}: got class {self.class_name!r}; label {_LABEL!r} has "
                f"{', '.join(label.classes.names) or 'none'}"
            )
        return label

    def ignoring(self, truth: SlideStore) -> SlideStore:
        """Return the slide with its labels set to 255 (ignore) outside."""
        return _Ignoring(
            path=truth.path, name=truth.name, image=truth.image, whole=truth, inside=self
        )

    def alone(self, image: Multiscale, slide: Labelled | None, full: Extent) -> Multiscale:
        """Return a label or probabilities, set to 0 outside.

        Parameters
        ----------
        image
            Image of the whole slide, at any resolution.
        slide, full
            See `rows`.
        """
        return _InsideImage(
            **image.parts(), whole=image, inside=self, slide=slide, full=full, outside=0
        )


@dataclass(frozen=True, slots=True, eq=False)
class _InsideImage(Multiscale):
    """Image or label that is read with a constant value outside."""

    whole: Multiscale
    inside: Inside
    slide: Labelled | None
    full: Extent
    outside: int

    def read(
        self, region: Region, *, cached: bool = True, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Read a region; see `Multiscale.read`."""
        pixels = self.whole.read(region, cached=cached)
        filled = destination(pixels.shape, out)
        filled[...] = pixels
        extent = self.pyramid.extents[region.level]
        filled[~self.inside.rows(self.slide, self.full, extent, region)] = self.outside
        return filled


@dataclass(frozen=True, slots=True, eq=False)
class _Ignoring(SlideStore):
    """Slide whose labels are ignored outside."""

    whole: SlideStore
    inside: Inside

    def label_names(self) -> tuple[str, ...]:
        """Return the names of the labels."""
        return self.whole.label_names()

    def planes(self, name: str) -> Multiscale:
        """Return a label that is ignored outside; see `SlideStore.planes`."""
        label, full = self.whole.planes(name), self.pyramid.extent
        return _InsideImage(
            **label.parts(),
            whole=label,
            inside=self.inside,
            slide=self.whole,
            full=full,
            outside=IGNORE,
        )


def _numbers(text: str) -> tuple[int, int, int, int]:
    """Parse x, y, width and height."""
    words = [word.strip() for word in text.split(",")]
    if len(words) != 4 or not all(word.isdecimal() for word in words):
        raise ConfigError(
            f"got --bbox {text!r}; expected X,Y,WIDTH,HEIGHT in level-0 pixels, such as "
            "2000,1000,512,512"
        )
    x, y, width, height = map(int, words)
    if not width or not height:
        raise ConfigError(f"got --bbox {text!r}; expected a width and a height of 1 or more")
    return x, y, width, height


def _polygons(path: Path) -> tuple[_Area, str]:
    """Return the polygons of a GeoJSON file as one area, and its name with a digest."""
    items = read_annotations(path, default_class="inside").items
    area = shapely.union_all([item.geometry for item in items])
    digest = hashlib.sha256(shapely.to_wkb(shapely.normalize(area))).hexdigest()[:16]
    return _polygonal(area, str(path)), f"{path.name} ({digest})"


def _polygonal(area: shapely.Geometry, path: str) -> _Area:
    if not isinstance(area, shapely.Polygon | shapely.MultiPolygon) or area.is_empty:
        raise ConfigError(f"got no polygons in {path}, or none inside the box; expected some")
    return area
