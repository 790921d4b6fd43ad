"""Owns the record of a run: one row of figures per epoch, kept as ``metrics.csv``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_seg.atomic import write_atomic

Row = dict[str, float]


@dataclass
class History:
    """Figures of all epochs so far, and which epoch was the best.

    Parameters
    ----------
    rows
        One per epoch: ``epoch``, ``loss`` and its terms, ``lr``, ``patches_per_second``,
        ``data_wait`` (share of the time spent waiting for patches) and, where it was validated,
        the figures of `monitor`.
    minutes
        Time spent in all epochs, earlier runs of the same folder included.
    monitor
        Figure that says which epoch is better: the higher, except for ``val_loss``.
    stopped
        Why training ended before all its patches, as a sentence; empty if it did not.
    """

    rows: list[Row] = field(default_factory=list)
    minutes: float = 0.0
    monitor: str = "val_dice"
    stopped: str = ""

    def gain(self, row: Row) -> float | None:
        """How good an epoch is, the higher the better; None if it was not validated."""
        value = row.get(self.monitor)
        return -value if value is not None and self.monitor == "val_loss" else value

    @property
    def best(self) -> Row | None:
        """First row that is the best; None before any validation."""
        return next(iter(self._ranked()), None)

    @property
    def validations_since_best(self) -> int:
        """Validations since the best one."""
        best = self.best
        if best is None:
            return 0
        return sum(row["epoch"] > best["epoch"] for row in self._ranked())

    def top(self, count: int) -> list[Row]:
        """Best rows first, at most ``count``; the last ones where nothing was validated."""
        return self._ranked()[:count] or self.rows[: -count - 1 : -1]

    def _ranked(self) -> list[Row]:
        """Rows that were validated, best first, of equal ones the first."""
        gains = [(gain, row) for row in self.rows if (gain := self.gain(row)) is not None]
        return [row for _, row in sorted(gains, key=lambda pair: -pair[0])]

    def write_csv(self, path: Path, columns: Sequence[str]) -> None:
        """Write all rows, atomically.

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
        write_atomic(path, text.getvalue())
