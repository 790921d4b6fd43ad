"""Owns the metrics of a run: one row per epoch, saved as ``metrics.csv``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_seg.files.atomic import write_atomic

Row = dict[str, float]


@dataclass
class History:
    """Metrics of all epochs so far, ranked by the monitored metric.

    Parameters
    ----------
    rows
        One per epoch: ``epoch``, ``loss`` and its terms, ``lr``, ``patches_per_second``,
        ``data_wait`` (fraction of the time spent waiting for patches) and, if it was validated, the
        metrics of `learn.monitor`.
    minutes
        Time spent in all epochs, including earlier runs in the same folder.
    monitor
        Metric that ranks epochs: higher is better, except for ``val_loss``.
    stopped
        Why training stopped early; empty if it did not.
    """

    rows: list[Row] = field(default_factory=list)
    minutes: float = 0.0
    monitor: str = "val_dice"
    stopped: str = ""

    def gain(self, row: Row) -> float | None:
        """Return the score of an epoch, higher is better; None if it was not validated."""
        value = row.get(self.monitor)
        return -value if value is not None and self.monitor == "val_loss" else value

    @property
    def best(self) -> Row | None:
        """First of the best rows; None before any validation."""
        return next(iter(self._ranked()), None)

    @property
    def validations_since_best(self) -> int:
        """Number of validations since the best one."""
        best = self.best
        if best is None:
            return 0
        return sum(row["epoch"] > best["epoch"] for row in self._ranked())

    def top(self, count: int) -> list[Row]:
        """Return at most ``count`` rows, best first; without validation, the last rows."""
        return self._ranked()[:count] or self.rows[: -count - 1 : -1]

    def _ranked(self) -> list[Row]:
        """Return the validated rows, best first, and earlier epochs first among equals."""
        gains = [(gain, row) for row in self.rows if (gain := self.gain(row)) is not None]
        return [row for _, row in sorted(gains, key=lambda pair: -pair[0])]

    def write_csv(self, path: Path, columns: Sequence[str]) -> None:
        """Write all rows atomically.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        write_atomic(path, text.getvalue())
