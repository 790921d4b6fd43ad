"""A small prediction, its label map and its scores as they were when someone last looked at them.

Run ``python -m tests.evaluation.golden`` after a change that is meant to alter them, and read what
git shows as changed.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.classes import ClassTable
from wsi_seg.evaluation.compare import evaluate_slide
from wsi_seg.evaluation.scores import Measures, Scores
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.progress import Silent

FILE = Path(__file__).parent / "golden" / "scores.json"
CLASSES = ClassTable.named(["gland", "vessel"])
SHAPE = 24, 40


def _disc(y: float, x: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def truth() -> NDArray[np.uint8]:
    """Two glands, a vessel, and a strip that nobody has looked at."""
    ids = np.zeros(SHAPE, np.uint8)
    ids[_disc(7, 8, 5) | _disc(15, 29, 6)] = 1
    ids[_disc(18, 12, 4)] = 2
    ids[:, 37:] = 255
    return ids


def probability() -> NDArray[np.uint8]:
    """Of both classes; one gland is moved, the vessel small, and there is a gland too many."""
    found = np.full((*SHAPE, 2), 20, np.uint8)
    found[_disc(8, 9, 5) | _disc(15, 28, 6), 0] = 200
    found[_disc(3, 24, 2), 0] = 130
    found[_disc(18, 12, 3), 1] = 160
    found[_disc(18, 12, 1), 0] = 180
    return found


def current() -> dict[str, object]:
    """Label map in rows of digits, and all scores to six digits."""
    ids = label_map(probability())
    attributes = {"classes": CLASSES.to_json()}
    picture = MemoryImage(np.zeros((*SHAPE, 3), np.uint8), mpp=0.5)
    found, true = (
        MemoryStore(picture, name="s", label=MemoryImage(one, mpp=0.5, attributes=attributes))
        for one in (ids, truth())
    )
    measures = Measures(objects=True, tolerance_um=1.0, tile_px=12)
    scores = evaluate_slide(
        found, true, label="label", found_label="label", measures=measures, progress=Silent()
    )
    document = json.loads(json.dumps(Scores(tuple(scores)).to_json()), parse_float=_short)
    return {"label_map": ["".join(map(str, row)) for row in ids.tolist()], "scores": document}


def _short(text: str) -> float:
    return float(f"{float(text):.6g}")


if __name__ == "__main__":
    FILE.write_text(json.dumps(current(), indent=1) + "\n")
