"""Owns the record of a run: one row of figures per epoch, kept as ``metrics.csv``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_seg.errors import OutputError

Row = dict[str, float]


@dataclass
class History:
    """Figures of all epochs so far, and which epoch was the best.

    Parameters
    ----------
    rows
        One per epoch: ``epoch``, ``loss`` and its terms, ``lr``, ``patches_per_second``,
        ``data_wait`` (share of the time spent waiting for patches) and, where it was validated,
        ``val_dice`` and ``val_dice_<class>``.
    minutes
        Time spent in all epochs, earlier runs of the same folder included.
    """

    rows: list[Row] = field(default_factory=list)
    minutes: float = 0.0

    @property
    def best(self) -> Row | None:
        """First row with the highest ``val_dice``; None before any validation."""
        validated = [row for row in self.rows if "val_dice" in row]
        return max(validated, key=lambda row: row["val_dice"], default=None)

    @property
    def validations_since_best(self) -> int:
        """Validations since the best one."""
        best = self.best
        if best is None:
            return 0
        return sum("val_dice" in row and row["epoch"] > best["epoch"] for row in self.rows)

    def top(self, count: int) -> list[Row]:
        """Best rows first, at most ``count``; the last ones where nothing was validated."""
        validated = [row for row in self.rows if "val_dice" in row]
        if not validated:
            return self.rows[: -count - 1 : -1]
        return sorted(validated, key=lambda row: -row["val_dice"])[:count]

    def write_csv(self, path: Path, columns: Sequence[str]) -> None:
        """Write all rows, whole or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(text.getvalue(), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
