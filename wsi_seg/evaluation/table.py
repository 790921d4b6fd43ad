"""Owns writing scores: everything as JSON, and a row per slide and class as csv."""

import csv
import io
import json
from pathlib import Path

from wsi_seg.evaluation.scores import Scores
from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.half_written import remove_partials

SCORES = "scores.json"


def write_scores(folder: Path, scores: Scores) -> None:
    """Write ``scores.json`` and ``slides.csv``, each atomically.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    rows = [
        {"slide": s.slide, "class": s.class_name} | s.figures(scores.tolerance_um)
        for s in scores.slides
    ]
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files = folder / "slides.csv", folder / SCORES
    write_atomic(files[0], text.getvalue())
    # Last, because it marks both files as complete.
    write_atomic(files[1], json.dumps(scores.to_json(), indent=1))
    remove_partials(files)
