"""Owns finding the images in a TIFF file, and the pages of their levels and planes.

Vendor formats and OME-TIFF are split into series by tifffile. In all other files, each page is
classified by its own tags: pages with the same aspect ratio are levels of one image, three 8-bit
grey pages are its red, green and blue, and masks are ignored.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.files.json_text import parse_json
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits
from wsi_seg.slides.channels import require_colours
from wsi_seg.slides.resolution import tag_resolution
from wsi_seg.slides.scenes import UNTILED, Scene, is_reduction, main_scene
from wsi_seg.slides.vendors import OmeImage, associated_kind, leica_images, ome_images, ome_planes

# Formats whose series tifffile derives from the order of pages.
_BY_PAGES = {"generic", "shaped", "svs", "uniform"}
_PAGE_NAME, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 285, 282, 283, 296
_LENS = 65421  # Hamamatsu's SourceLens
_MASK = 4
_GREY = {0, 1}
_COLOURS = 3
_RATIO_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Planes:
    """The planes of one level of an image.

    Parameters
    ----------
    pages
        Pages that hold its planes: one, or three grey ones.
    joined
        Number of planes stored one after another in the data of a single page.
    """

    pages: tuple[Any, ...]
    joined: int = 1


@dataclass(slots=True)
class TiffImage:
    """One image of a TIFF: its scene, and its levels, finest first."""

    scene: Scene
    levels: list[Planes] = field(default_factory=list)
    ome: OmeImage | None = None
    number: int | None = None

    @property
    def page(self) -> Any:  # noqa: ANN401 (tifffile has no types)
        """Page with the tags of level 0."""
        return self.levels[0].pages[0]


def main_image(
    tiff: Any,  # noqa: ANN401 (tifffile has no types)
    fresh: Any,  # noqa: ANN401
    path: Path,
    scene: str | None,
) -> TiffImage:
    """Choose the image of a TIFF that is the slide; see `wsi_seg.slides.scenes`.

    Parameters
    ----------
    tiff
        The open `tifffile.TiffFile`.
    fresh
        The same file, opened again: reading the series turns pages of ``tiff`` into frames.
    path
        The file.
    scene
        Number (from 1) or name of the image to read, if there are several.

    Raises
    ------
    SlideError
        If there is no image, or the file is damaged.
    UnsupportedSlideError
        If it is of an unsupported kind, or holds several images and ``scene`` must choose one.
    """
    if tiff.is_philips:  # tifffile does not parse pixel sizes with decimal commas
        first = tiff.pages.first
        first.description = re.sub(r"(?<=\d),(?=\d)", ".", first.description)
    _require_readable(tiff, path)
    if tiff.is_scn:
        images = [_of_series(tiff.series[_leica_main(tiff, path)], path)]
    elif tiff.series[0].kind in _BY_PAGES and not tiff.is_ome:
        images = _of_pages(fresh, path)
    else:
        images = _of_all_series(tiff, path)
    if not images:
        raise SlideError(f"{path}: holds no image")
    if len(images) == 1 and scene is None:
        return images[0]
    index, number = main_scene(path, [image.scene for image in images], scene)
    images[index].number = number
    return images[index]


def _require_readable(tiff: Any, path: Path) -> None:  # noqa: ANN401 (tifffile has no types)
    if tiff.is_bif:
        raise UnsupportedSlideError(f"{path}: Ventana BIF tiles overlap, which is not supported")
    first = tiff.pages.first
    if min(first.imagewidth, first.imagelength) < 1:  # tifffile would skip to the next page
        raise SlideError(
            f"{path}: got a first page of {first.imagewidth} x {first.imagelength} px; expected at "
            "least 1 x 1"
        )
    if tiff.is_ome and ome_planes(tiff.ome_metadata or "") > limits().ifds:
        raise SlideError(f"{path}: its OME-XML declares too many planes; {advice('ifds')}")
    if not tiff.series:
        raise SlideError(f"{path}: holds no image")
    if tiff.is_philips and tiff.series[0].kind != "philips":
        raise UnsupportedSlideError(
            f"{path}: the levels of this Philips slide cannot be determined"
        )


def _leica_main(tiff: Any, path: Path) -> int:  # noqa: ANN401 (tifffile has no types)
    """Return the index of the only image that does not show the whole glass."""
    images = leica_images(tiff.scn_metadata or "")
    main = [number for number, image in enumerate(images) if not image.overview]
    if len(main) != 1 or len(images) != len(tiff.series):
        raise UnsupportedSlideError(
            f"{path}: got {len(main)} scanned areas next to the overview; expected one"
        )
    return main[0]


def _of_all_series(tiff: Any, path: Path) -> list[TiffImage]:  # noqa: ANN401 (no types)
    """Return the images of tifffile's series; associated images without their levels."""
    described = ome_images(tiff.ome_metadata or "") if tiff.is_ome else ()
    images = []
    for number, series in enumerate(tiff.series):
        about = described[number] if len(described) == len(tiff.series) else None
        name = about.name if about else str(series.name or "")
        excluded = _hamamatsu_kind(series) if series.kind == "ndpi" else associated_kind(name)
        mpp = about.resolution.mpp if about else None
        image = TiffImage(Scene(name, _extent(series.keyframe), mpp, excluded), ome=about)
        if not excluded:
            image.levels = _of_series(series, path, about).levels
        images.append(image)
    return images


def _hamamatsu_kind(series: Any) -> str:  # noqa: ANN401 (tifffile has no types)
    """Recognize macro and map images by the lens, because users may edit the names."""
    return {-1.0: "macro", -2.0: "map"}.get(series.keyframe.tags.valueof(_LENS), "")


def _of_series(series: Any, path: Path, about: OmeImage | None = None) -> TiffImage:  # noqa: ANN401
    """Return the image of a tifffile series: one grey or RGB plane, or three grey planes."""
    axes = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if n > 1]
    others = [(axis, n) for axis, n in axes if axis not in "YXS"]
    page = series.keyframe
    levels = [Planes((level.keyframe,)) for level in series.levels]
    if others:
        names = about.channels if about else ()
        ((axis, count), *more) = others
        if more or axis not in "CIQ" or page.samplesperpixel > 1:
            raise UnsupportedSlideError(
                f"{path}: got an image of axes {series.axes} and shape {series.shape}; expected "
                "one grey or RGB plane (YX, YXS or SYX); split the file into planes"
            )
        require_colours(path, count, names, bits=_bits(page))
        levels = [_three(level, path) for level in series.levels]
    return TiffImage(Scene(str(series.name or ""), _extent(page), _mpp(page)), levels)


def _three(level: Any, path: Path) -> Planes:  # noqa: ANN401 (tifffile has no types)
    """Return the three planes of a level: three pages, or contiguous data of a single page."""
    pages = [page for page in level.pages if page is not None]
    if len(pages) == _COLOURS:
        return Planes(tuple(pages))
    page = level.keyframe
    if page.is_contiguous and int(page.compression) == 1:
        return Planes((page,), joined=_COLOURS)
    raise UnsupportedSlideError(
        f"{path}: got {len(pages)} pages for its {_COLOURS} planes; expected one each"
    )


def _of_pages(tiff: Any, path: Path) -> list[TiffImage]:  # noqa: ANN401 (tifffile has no types)
    """Return the images of a file by classifying each page."""
    pages = {page.offset: page for page in _all_pages(tiff) if page.size and page.shape}
    shown = [page for page in pages.values() if not int(page.subfiletype) & _MASK]
    marked = any(not page.is_reduced for page in shown)  # a flag on all pages means nothing
    tiled = max((page.imagewidth * page.imagelength for page in shown if page.is_tiled), default=0)
    images: list[TiffImage] = []
    for group in sorted(_grouped(shown), key=lambda group: -_extent(group[0]).area):
        planes = _joined(group, path)
        if _are_levels(planes, images):
            continue
        for level in planes:
            page = level.pages[0]
            excluded = _excluded_as(page)
            if not excluded and marked and page.is_reduced:
                excluded = "reduced image"
            if not excluded and not page.is_tiled and page.imagewidth * page.imagelength <= tiled:
                excluded = "thumbnail" if page.is_svs else UNTILED
            images.append(TiffImage(Scene("", _extent(page), _mpp(page), excluded), [level]))
    return images


def _all_pages(tiff: Any) -> Iterator[Any]:  # noqa: ANN401 (tifffile has no types)
    for page in tiff.pages:
        yield page
        if page.subifds:
            yield from page.pages


def _grouped(pages: Sequence[Any]) -> list[list[Any]]:
    """Group pages of the same size and sample format, in file order."""
    groups: dict[object, list[Any]] = {}
    for page in pages:
        alike = (_extent(page), page.samplesperpixel, _bits(page), int(page.photometric))
        groups.setdefault((*alike, page.is_reduced, _excluded_as(page)), []).append(page)
    return list(groups.values())


def _joined(group: Sequence[Any], path: Path) -> list[Planes]:
    """Combine three 8-bit grey pages to one RGB level; return any other page as its own level."""
    first = group[0]
    grey = int(first.photometric) in _GREY and first.samplesperpixel == 1
    if grey and len(group) > 1 and (len(group) == _COLOURS or _bits(first) > 8):
        require_colours(path, len(group), (), bits=_bits(first))
        return [Planes(tuple(group))]
    joined = _contiguous_planes(first) if grey and len(group) == 1 else 1
    if joined > 1:
        require_colours(path, joined, (), bits=_bits(first))
    return [Planes((page,), joined) for page in group]


def _contiguous_planes(page: Any) -> int:  # noqa: ANN401 (tifffile has no types)
    """Return the number of planes in a page's data, by the shape in tifffile's description."""
    text = page.shaped_description
    found = parse_json(text.encode()) if text and text.startswith("{") else None
    shape = found.get("shape") if isinstance(found, dict) else None
    whole = math.prod(int(side) for side in shape or ())
    alike = page.is_contiguous and int(page.compression) == 1
    return max(1, whole // max(1, page.size)) if alike else 1


def _are_levels(planes: Sequence[Planes], images: Sequence[TiffImage]) -> bool:
    """Add levels to the images that they reduce; return False if they match no image."""
    fitting = [image for image in images if _is_level(planes[0].pages[0], image.page)]
    if len(fitting) != len(planes):
        return False
    for level, image in zip(planes, fitting, strict=True):
        image.levels.append(level)
    return True


def _is_level(small: Any, full: Any) -> bool:  # noqa: ANN401 (tifffile has no types)
    """Return whether a page is a reduced version of another, by its flags, size and tiling."""
    alike = (small.samplesperpixel, small.dtype) == (full.samplesperpixel, full.dtype)
    shown = [Scene("", _extent(page), _mpp(page)) for page in (small, full)]
    if not alike or _excluded_as(small) or not is_reduction(*(replace(s, mpp=None) for s in shown)):
        return False
    if small.is_reduced or small.is_subifd:
        return True
    if full.is_tiled and not small.is_tiled:  # an unmarked thumbnail
        return False
    ratio = full.imagewidth / small.imagewidth
    # Some programs write the same resolution for all levels.
    whole = shown[0].mpp == shown[1].mpp and abs(ratio - round(ratio)) < _RATIO_TOLERANCE
    return bool(full.is_svs) or whole or is_reduction(*shown)


def _excluded_as(page: Any) -> str:  # noqa: ANN401 (tifffile has no types)
    return associated_kind(str(page.tags.valueof(_PAGE_NAME) or "")) or associated_kind(
        page.description or ""
    )


def _extent(page: Any) -> Extent:  # noqa: ANN401 (tifffile has no types)
    return Extent(height=page.imagelength, width=page.imagewidth)


def _bits(page: Any) -> int:  # noqa: ANN401 (tifffile has no types)
    return int(page.bitspersample) if isinstance(page.bitspersample, int) else 0


def _mpp(page: Any) -> float | None:  # noqa: ANN401 (tifffile has no types)
    tags = page.tags
    return tag_resolution(
        tags.valueof(_X_RESOLUTION), tags.valueof(_Y_RESOLUTION), int(tags.valueof(_UNIT, 2))
    ).mpp
