"""Owns reviews: verdicts on objects and drawn shapes, stored as annotations for `annotate`.

There is one GeoJSON file per slide. Objects marked right and drawn shapes are features of their
class with source ``review``. Objects marked unsure or not reviewed are features of the class
``ignore``, which training skips. Objects marked wrong become background and have no feature; all
verdicts are stored in the foreign member ``wsi_seg_review`` (RFC 7946, section 6.1).
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

from wsi_seg.classes import IGNORE_NAME
from wsi_seg.errors import AnnotationError, BusyError
from wsi_seg.evaluation.review_objects import ReviewObject
from wsi_seg.files.atomic import atomic_path
from wsi_seg.store.lock import locked
from wsi_seg.viewer.shapes import Rings, polygon_of

# Largest request; reviews are drawn by hand, and much smaller.
MAX_BYTES = 8 * 2**20

Verdict = Literal["right", "wrong", "unsure"]

# Version of a review before it is saved for the first time.
_UNSAVED = "new"

# Timeout of the folder's lock, and the interval between attempts, in seconds.
_LOCK_TIMEOUT, _LOCK_INTERVAL = 10.0, 0.02


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Drawing(_Strict):
    """Drawn shape.

    Parameters
    ----------
    class_name
        Name of the class.
    rings
        Outer ring, then holes, as ``(x, y)`` in level-0 pixels; not closed.
    """

    class_name: str = Field(min_length=1, max_length=200)
    rings: Rings


class Review(_Strict):
    """Review of one slide: verdicts by object id, and drawn shapes."""

    verdicts: dict[int, Verdict] = Field(default_factory=dict)
    drawings: list[Drawing] = Field(default_factory=list, max_length=10_000)


def read_review(path: Path, objects: Sequence[ReviewObject]) -> Review:
    """Read the review of a file; it is empty if the file does not exist.

    Verdicts are matched to objects by kind, class and bounding box. Objects that were marked right
    but are missing from a newer prediction become drawn shapes, so that a review remains valid.

    Raises
    ------
    AnnotationError
        If the file was not written by `write_review`.
    """
    try:
        document = json.loads(path.read_bytes())
        kept = document["wsi_seg_review"]
        drawings = [_drawing(drawing) for drawing in kept["drawings"]]
        verdicts = {str(key): value for key, value in kept["verdicts"].items()}
        known = {_key(item): item.id for item in objects}
        drawings += [_as_drawing(one) for one in document["features"] if _is_lost(one, known)]
    except FileNotFoundError:
        return Review()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AnnotationError(
            f"{path} is not a review of the viewer ({type(error).__name__}); move it away"
        ) from error
    pairs = {known[key]: verdict for key, verdict in verdicts.items() if key in known}
    try:
        return Review(verdicts=pairs, drawings=drawings)
    except ValidationError as error:
        raise AnnotationError(f"{path}: {error.errors()[0]['msg']}; move it away") from error


def review_version(path: Path) -> str:
    """Return the version of a review: a digest of its file, or ``new`` if there is no file."""
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
    """Write a review atomically, if the file still is the version that it was made from.

    Parameters
    ----------
    path
        File of the review.
    review
        Verdicts and drawn shapes.
    objects
        Objects of the slide.
    over
        Version to replace; see `review_version`.
    weight
        Weight of reviewed annotations in training, 0 to 1.

    Returns
    -------
    str
        New version.

    Raises
    ------
    BusyError
        If another version was saved since.
    AnnotationError
        If a verdict refers to no object, or a shape has no area.
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
            key=_key(item),
            weight=weight,
        )
        for item in objects
        if review.verdicts.get(item.id) != "wrong"
    ]
    features += [
        _feature(_polygon(drawing), drawing.class_name, "drawn", weight=weight)
        for drawing in review.drawings
    ]
    document = {
        "type": "FeatureCollection",
        "features": features,
        "wsi_seg_review": {
            "verdicts": {_key(by_id[id_]): value for id_, value in review.verdicts.items()},
            "drawings": [drawing.model_dump() for drawing in review.drawings],
        },
    }
    text = json.dumps(document)
    with _locked(path.parent):  # no other viewer may write between check and replacement
        if review_version(path) != over:
            raise BusyError(
                f"somebody else saved a review of {path.stem} since you opened it, so your last "
                "change was not saved; open the slide again to load theirs, and repeat the change"
            )
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return review_version(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder of reviews, waiting briefly if another viewer holds the lock."""
    end = time.monotonic() + _LOCK_TIMEOUT
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder, "wsi-seg view", make=True))
                break
            except BusyError:
                if time.monotonic() > end:
                    raise
                time.sleep(_LOCK_INTERVAL)
        yield


def _class_in_training(item: ReviewObject, review: Review) -> str:
    return item.class_name if review.verdicts.get(item.id) == "right" else IGNORE_NAME


def _polygon(drawing: Drawing) -> Polygon:
    if polygon_of(drawing.rings).area < 1:
        raise AnnotationError("got a shape without area; expected at least 1 px²")
    return Polygon(drawing.rings[0], drawing.rings[1:])


def _drawing(kept: Mapping[str, Any]) -> Drawing:
    """Parse a stored shape; older files have a single ``ring`` without holes."""
    if "ring" in kept:
        return Drawing(class_name=kept["class_name"], rings=[kept["ring"]])
    return Drawing.model_validate(kept)


def _key(item: ReviewObject) -> str:
    """Return a key of an object that does not depend on its id: kind, class and bounding box."""
    box = ",".join(f"{value:.1f}" for value in item.polygon.bounds)
    return f"{item.kind}:{item.class_name}:{box}"


def _is_lost(feature: Mapping[str, Any], known: Mapping[str, int]) -> bool:
    """Return whether a feature is an object that was marked right but no longer exists."""
    properties = feature["properties"]
    return properties["verdict"] == "right" and properties["object"] not in known


def _as_drawing(feature: Mapping[str, Any]) -> Drawing:
    name = feature["properties"]["classification"]["name"]
    return Drawing(
        class_name=name, rings=[ring[:-1] for ring in feature["geometry"]["coordinates"]]
    )


def _feature(
    polygon: Polygon, class_name: str, verdict: str, *, weight: float, key: str | None = None
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
            "object": key,
        },
    }
