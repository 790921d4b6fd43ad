"""Owns scores as files: all figures as JSON, and a row for each slide and class as csv."""

import csv
import io
import json
from pathlib import Path

from wsi_seg.errors import OutputError
from wsi_seg.evaluate.scores import Scores


def write_scores(folder: Path, scores: Scores) -> None:
    """Write ``scores.json`` and ``slides.csv``, each whole or not at all.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    document = scores.to_json()
    rows = [
        {"slide": s.slide, "class": s.class_name} | s.figures(scores.tolerance_um)
        for s in scores.slides
    ]
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    contents = {"scores.json": json.dumps(document, indent=1), "slides.csv": text.getvalue()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            partial = folder / f".{name}.partial"
            partial.write_text(content, encoding="utf-8")
            partial.replace(folder / name)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
