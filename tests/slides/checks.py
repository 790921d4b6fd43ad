"""What our own readers promise besides `check_slide`: odd names, scenes, gaps, orientations."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import SlideError, UndecidedSlideError
from wsi_seg.geometry import Region
from wsi_seg.slides import Slide, open_slide
from wsi_seg.slides.orientation import upright
from wsi_seg.testing.conformance import Levels, check_slide

# What addresses, shells and globs read as their own; no file system of ours forbids any of them.
_ODD_NAMES = (
    "a#b",
    "a?b",
    "a;b",
    "a%20b",
    " a b ",
    "a\tb\nc",
    "'a\"",
    "-a",
    "a:b@c",
    "[a]*",
    "Ä\U0001f52c",
)


def check_turned(write: Callable[[Path, NDArray[np.uint8], int], None], path: Path) -> None:
    """Raise AssertionError unless every orientation is read upright.

    Parameters
    ----------
    write
        Writes a file of ``(H, W, 3)`` pixels, as stored, with an orientation of 1 to 8.
    path
        File to write.
    """
    shown = np.arange(70 * 90 * 3).reshape(70, 90, 3).astype(np.uint8)
    for orientation in range(1, 9):
        # Turning is undone by turning the other way: 6 and 8 are each other's, the rest their own.
        stored = upright(shown, {6: 8, 8: 6}.get(orientation, orientation))
        write(path, np.ascontiguousarray(stored), orientation)
        check_slide(path, [shown])


def check_unlike(path: Path, *, x: float, y: float) -> None:
    """Raise AssertionError unless pixels that are not square are refused, but for ``--mpp``.

    Parameters
    ----------
    path
        The file.
    x, y
        Micrometres per pixel along each axis, as the file states them.
    """
    try:
        open_slide(path)
    except UndecidedSlideError as error:
        message = str(error)
    else:
        raise AssertionError(f"{path} was opened, though its pixels are not square")
    assert f"{x:.4g} um along x and {y:.4g} um along y" in message, message
    assert path.name in message, message
    with open_slide(path, mpp=0.5) as slide:
        assert slide.pyramid.mpp == 0.5, slide.pyramid.mpp


def check_scenes(path: Path, scenes: Mapping[str, Levels]) -> None:
    """Raise AssertionError unless a file of several images is refused, and each can be picked.

    Parameters
    ----------
    path
        The file.
    scenes
        True pixels of the levels of each image by its name, in their order; names that begin
        with ``?`` are not in the file.
    """
    try:
        open_slide(path)
    except UndecidedSlideError as error:
        message = str(error)
    else:
        raise AssertionError(f"{path} was opened, though it holds several images")
    for number, (name, levels) in enumerate(scenes.items(), 1):
        height, width = levels[0].shape[:2]
        assert f"{number}: {width} x {height} px" in message, message
        for wanted in [str(number)] + ([] if name.startswith("?") else [name]):
            check_slide(path, levels, opener=partial(open_slide, scene=wanted))
            assert open_slide(path, scene=wanted).scene == number
    for wanted in ("0", str(len(scenes) + 1), "no such image"):
        try:
            open_slide(path, scene=wanted)
        except SlideError as error:
            message = str(error)
        else:
            raise AssertionError(f"{path} has no scene {wanted}, but it was opened")
        assert f"--scene {wanted}" in message, message


def check_left_out(path: Path, levels: Levels, places: Sequence[Region], colour: int = 255) -> None:
    """Raise AssertionError unless pixels that a file leaves out have one value.

    Parameters
    ----------
    path
        The file.
    levels
        Pixels of each level as if nothing were left out, ``(H, W, 3)`` uint8.
    places
        Rectangles of pixels that are left out.
    colour
        Value that they have.
    """
    expected = [level.copy() for level in levels]
    for place in places:
        expected[place.level][place.slices] = colour
    check_slide(path, expected)


def check_names(write: Callable[[Path], object], folder: Path, suffix: str) -> None:
    """Raise AssertionError unless a file is read under any name.

    Parameters
    ----------
    write
        Writes the file, or the folder that is the slide.
    folder
        Where to write.
    suffix
        Ending of its name.
    """
    for name in (*_ODD_NAMES, "n" * (250 - len(suffix))):
        path = folder / f"{name}{suffix}"
        write(path)
        with open_slide(path) as slide:
            assert slide.name == name, slide.name
            levels = [
                slide.read(slide.pyramid.extents[n].region(n))
                for n in range(len(slide.pyramid.extents))
            ]
            copy: Slide = pickle.loads(pickle.dumps(slide))
            assert np.array_equal(copy.read(copy.pyramid.extent.region()), levels[0]), name
