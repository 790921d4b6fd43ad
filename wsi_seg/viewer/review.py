"""Owns a review: what people said about objects, kept as annotations that `annotate` reads.

One GeoJSON file per slide. Objects marked right and outlines drawn are features of their class
with source ``review``; objects marked unsure, and those not looked at, are features of the
class ``ignore``, so training neither learns nor unlearns them. Objects marked wrong are left
out: there is background. They are kept under ``wsi_seg_review``, where GeoJSON readers do not
look (RFC 7946, section 6.1).
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import shapely
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from shapely.geometry import Polygon

from wsi_seg.atomic import atomic_path
from wsi_seg.classes import IGNORE_NAME
from wsi_seg.errors import AnnotationError, BusyError
from wsi_seg.evaluation.review_objects import ReviewObject
from wsi_seg.store.lock import locked
from wsi_seg.viewer.shapes import Rings, polygon_of

# A review is drawn by hand; a request with more than this is something else.
MAX_BYTES = 8 * 2**20

Verdict = Literal["right", "wrong", "unsure"]

# Version of a review that nobody saved yet.
_UNSAVED = "new"

# Seconds until a folder that somebody else writes to is called busy, and between two tries.
_PATIENCE, _PAUSE = 10.0, 0.02


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Drawing(_Strict):
    """Shape that a person drew, ``(x, y)`` in level-0 pixels, and its class.

    Parameters
    ----------
    class_name
        Name of the class.
    rings
        The outer one, then holes; not closed.
    """

    class_name: str = Field(min_length=1, max_length=200)
    rings: Rings


class Review(_Strict):
    """What was said about one slide: a verdict by object id, and outlines drawn."""

    verdicts: dict[int, Verdict] = Field(default_factory=dict)
    drawings: list[Drawing] = Field(default_factory=list, max_length=10_000)


def read_review(path: Path, objects: Sequence[ReviewObject]) -> Review:
    """Review in a file; empty where there is no file. Verdicts find their objects by outline.

    Objects that were right and that a newer prediction lacks come back as shapes drawn by hand, so
    a review outlives the prediction it was made on.

    Raises
    ------
    AnnotationError
        If the file is not one that `write_review` made.
    """
    try:
        document = json.loads(path.read_bytes())
        kept = document["wsi_seg_review"]
        drawings = [_drawing(drawing) for drawing in kept["drawings"]]
        verdicts = {str(key): value for key, value in kept["verdicts"].items()}
        known = {_place(item): item.id for item in objects}
        drawings += [_redrawn(one) for one in document["features"] if _lost(one, known)]
    except FileNotFoundError:
        return Review()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnnotationError(
            f"{path} is not a review that the viewer wrote ({type(error).__name__}); move it away"
        ) from error
    pairs = {known[place]: verdict for place, verdict in verdicts.items() if place in known}
    try:
        return Review(verdicts=pairs, drawings=drawings)
    except ValidationError as error:
        raise AnnotationError(f"{path}: {error.errors()[0]['msg']}; move it away") from error


def review_version(path: Path) -> str:
    """Version of a review: a digest of its file, or ``new`` where there is none yet."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        return _UNSAVED


def write_review(
    path: Path,
    review: Review,
    objects: Sequence[ReviewObject],
    *,
    over: str,
    weight: float = 1.0,
) -> str:
    """Keep a review, whole or not at all, in the place of the version it was made from.

    Parameters
    ----------
    path
        Of the review.
    review
        What was said.
    objects
        Of the slide.
    over
        Version that it replaces; see `review_version`.
    weight
        How much what was reviewed counts in training, 0 to 1.

    Returns
    -------
    str
        Version that was written.

    Raises
    ------
    BusyError
        If somebody else saved another version since.
    AnnotationError
        If a verdict names no object, or an outline has no area.
    OutputError
        If the file cannot be written.
    """
    by_id = {item.id: item for item in objects}
    unknown = sorted(set(review.verdicts) - set(by_id))
    if unknown:
        raise AnnotationError(f"got a verdict on object {unknown[0]}, which does not exist")
    features = [
        _feature(
            item.polygon,
            _class_in_training(item, review),
            review.verdicts.get(item.id, "unseen"),
            place=_place(item),
            weight=weight,
        )
        for item in objects
        if review.verdicts.get(item.id) != "wrong"
    ]
    features += [
        _feature(_drawn(drawing), drawing.class_name, "drawn", weight=weight)
        for drawing in review.drawings
    ]
    document = {
        "type": "FeatureCollection",
        "features": features,
        "wsi_seg_review": {
            "verdicts": {_place(by_id[key]): value for key, value in review.verdicts.items()},
            "drawings": [drawing.model_dump() for drawing in review.drawings],
        },
    }
    text = json.dumps(document)
    with _held(path.parent):  # no other viewer writes between looking and replacing
        if review_version(path) != over:
            raise BusyError(
                f"somebody else saved a review of {path.stem} since you opened it, so your last "
                "change was not saved; open the slide again to see theirs, and make the change "
                "again"
            )
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return review_version(path)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder of reviews, after those who hold it now: a review is written in a moment."""
    end = time.monotonic() + _PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder, "wsi-seg view", make=True))
                break
            except BusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)
        yield


def _class_in_training(item: ReviewObject, review: Review) -> str:
    return item.class_name if review.verdicts.get(item.id) == "right" else IGNORE_NAME


def _drawn(drawing: Drawing) -> Polygon:
    if polygon_of(drawing.rings).area < 1:
        raise AnnotationError("got an outline without area; expected at least 1 px²")
    return Polygon(drawing.rings[0], drawing.rings[1:])


def _drawing(kept: Mapping[str, Any]) -> Drawing:
    """Shape as the file keeps it; before shapes had holes, one had a ``ring``."""
    if "ring" in kept:
        return Drawing(class_name=kept["class_name"], rings=[kept["ring"]])
    return Drawing.model_validate(kept)


def _place(item: ReviewObject) -> str:
    """Name of an object that outlives its number: kind, class and bounding box."""
    box = ",".join(f"{value:.1f}" for value in item.polygon.bounds)
    return f"{item.kind}:{item.class_name}:{box}"


def _lost(feature: Mapping[str, Any], known: Mapping[str, int]) -> bool:
    """Whether a feature is an object that was right and is no longer among those known."""
    properties = feature["properties"]
    return properties["verdict"] == "right" and properties["object"] not in known


def _redrawn(feature: Mapping[str, Any]) -> Drawing:
    name = feature["properties"]["classification"]["name"]
    return Drawing(
        class_name=name, rings=[ring[:-1] for ring in feature["geometry"]["coordinates"]]
    )


def _feature(
    polygon: Polygon, class_name: str, verdict: str, *, weight: float, place: str | None = None
) -> Mapping[str, object]:
    rings = [polygon.exterior, *polygon.interiors]
    coordinates = [shapely.get_coordinates(ring).round(2).tolist() for ring in rings]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": coordinates},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": class_name},
            "source": "review",
            "weight": weight,
            "verdict": verdict,
            "object": place,
        },
    }
