"""Owns the JSON form of a slide's scores, which processes of a shared evaluation exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsi_seg.evaluation.boundary import Distances
from wsi_seg.evaluation.calibration import Reliability
from wsi_seg.evaluation.matching import ObjectCounts
from wsi_seg.evaluation.scores import Counts, SlideScore


@dataclass(frozen=True, slots=True)
class ScoredSlide:
    """Result of evaluating one slide.

    Parameters
    ----------
    slide
        Name of the slide.
    scores
        Scores of each class.
    reliability
        Calibration counts by class; see `Reliability`.
    maps
        Names of labels that were added to the prediction.
    lack
        Reason why the slide has no scores (the truth has no such label); None if it has scores.
    """

    slide: str
    scores: tuple[SlideScore, ...] = ()
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    maps: tuple[str, ...] = ()
    lack: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the result as JSON values.

        Examples
        --------
        >>> ScoredSlide.from_json(ScoredSlide("a", lack="no label").to_json()).lack
        'no label'
        """
        return {
            "slide": self.slide,
            "scores": [_score_json(score) for score in self.scores],
            "reliability": {name: one.counts.tolist() for name, one in self.reliability.items()},
            "maps": list(self.maps),
            "lack": self.lack,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "ScoredSlide":
        """Create a result from the values of `to_json`."""
        return cls(
            found["slide"],
            tuple(map(_score, found["scores"])),
            {
                name: Reliability(np.array(counts, dtype=np.int64))
                for name, counts in found["reliability"].items()
            },
            tuple(found["maps"]),
            found["lack"],
        )


def _score_json(score: SlideScore) -> dict[str, object]:
    objects, distances, counts = score.objects, score.distances, score.counts
    return {
        "slide": score.slide,
        "class_name": score.class_name,
        "counts": [counts.tp, counts.fp, counts.fn],
        "objects": objects and [objects.ious, objects.found, objects.true],
        "distances": distances and [distances.there.tolist(), distances.back.tolist()],
        "tile_dices": score.tile_dices,
        "mpp": score.mpp,
    }


def _score(found: Mapping[str, Any]) -> SlideScore:
    objects, distances, tiles = found["objects"], found["distances"], found["tile_dices"]
    return SlideScore(
        found["slide"],
        found["class_name"],
        Counts(*found["counts"]),
        None if objects is None else ObjectCounts(tuple(objects[0]), *objects[1:]),
        None
        if distances is None
        else Distances(*(np.array(side, dtype=np.int64).reshape(-1, 2) for side in distances)),
        None if tiles is None else tuple(tiles),
        found["mpp"],
    )
