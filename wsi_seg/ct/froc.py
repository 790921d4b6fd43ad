"""Owns FROC: sensitivity over false positives per scan, the CPM, and its confidence interval.

The rules are those of LUNA16: a candidate hits a finding if it is within its radius; of several
candidates in one finding, the most probable counts, and the others are ignored; candidates in
excluded findings are ignored; scans without findings count, too.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.counts import counted
from wsi_seg.errors import AnnotationError, ConfigError

# False positives per scan at which LUNA16 evaluates the curve; the CPM is the mean over them.
RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)

_DRAWS = 1000
_LEVEL = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Candidates or true findings in scans.

    Parameters
    ----------
    scan
        Names of the scans, ``(n,)``.
    centre
        Centres x, y, z in mm, ``(n, 3)`` float64.
    value
        Probability of a candidate (0 to 1), or diameter of a true finding in mm, ``(n,)`` float64.
    """

    scan: NDArray[np.str_]
    centre: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.scan)

    def of(self, scan: str) -> "Findings":
        """Return those of one scan."""
        here = self.scan == scan
        return Findings(self.scan[here], self.centre[here], self.value[here])


@dataclass(frozen=True, slots=True, eq=False)
class ScanDetections:
    """Candidates of one scan, matched to its findings.

    Parameters
    ----------
    hits
        Probability of the most probable candidate in each hit finding, ``(hits,)`` float64.
    false
        Probabilities of the candidates outside all findings, ``(false,)`` float64.
    true
        Number of true findings.
    """

    hits: Floats
    false: Floats
    true: int


def match_detections(
    candidates: Findings, true: Findings, exclude: Findings | None = None
) -> ScanDetections:
    """Match the candidates of one scan to its findings by the rules of this module."""
    inside = _inside(candidates, true)
    hit = inside.any(axis=0)
    best = np.where(inside, candidates.value[:, None], -np.inf).max(axis=0, initial=-np.inf)
    wrong = ~inside.any(axis=1)
    if exclude is not None and len(exclude):
        wrong &= ~_inside(candidates, exclude).any(axis=1)
    return ScanDetections(best[hit], candidates.value[wrong], len(true))


def _inside(candidates: Findings, findings: Findings) -> NDArray[np.bool_]:
    """Return whether each candidate is in each finding, ``(candidates, findings)`` bool."""
    squared = ((candidates.centre[:, None] - findings.centre[None]) ** 2).sum(axis=2)
    inside: NDArray[np.bool_] = squared < (findings.value / 2) ** 2
    return inside


@dataclass(frozen=True, slots=True)
class Froc:
    """FROC curve, and the metrics derived from it.

    Parameters
    ----------
    false_per_scan, sensitivity
        Points of the curve, ascending.
    at_rates
        Sensitivity at each of ``rates``.
    rates
        False positives per scan.
    cpm
        Mean of ``at_rates``.
    low, high
        95 % bootstrap interval of ``cpm`` over scans; None for fewer than two scans.
    scans, true, candidates
        Numbers of scans, true findings and candidates.
    """

    false_per_scan: tuple[float, ...]
    sensitivity: tuple[float, ...]
    at_rates: tuple[float, ...]
    rates: tuple[float, ...]
    cpm: float
    low: float | None
    high: float | None
    scans: int
    true: int
    candidates: int

    def lines(self) -> list[str]:
        """Return the metrics as lines of text."""
        ends = "" if self.low is None else f" (95 % interval {self.low:.4f} to {self.high:.4f})"
        findings, scans = counted(self.true, "true finding"), counted(self.scans, "scan")
        lines = [
            f"{findings} in {scans}, {counted(self.candidates, 'candidate')}",
            f"CPM {self.cpm:.4f}{ends}",
        ]
        pairs = zip(self.rates, self.at_rates, strict=True)
        return [*lines, *(f"  {rate:g} false positives per scan: {hit:.4f}" for rate, hit in pairs)]

    def to_json(self) -> dict[str, object]:
        """Return metrics and curve as JSON values."""
        return {
            "cpm": self.cpm,
            "cpm_low": self.low,
            "cpm_high": self.high,
            "scans": self.scans,
            "true": self.true,
            "candidates": self.candidates,
            "rates": list(self.rates),
            "at_rates": list(self.at_rates),
            "froc": {
                "false positives per scan": list(self.false_per_scan),
                "sensitivity": list(self.sensitivity),
            },
        }


def froc(scans: Sequence[ScanDetections], *, rates: Sequence[float] = RATES) -> Froc:
    """Compute the FROC curve of scans, with linear interpolation between its points.

    The interval is a bootstrap over scans: 1,000 draws with replacement, with a fixed seed.

    Raises
    ------
    ConfigError
        If there is no true finding.
    """
    if not sum(scan.true for scan in scans):
        raise ConfigError("got no true finding in any scan; FROC needs at least one")
    false, hit = _curve(scans)
    at = np.interp(rates, false, hit)
    low = high = None
    if len(scans) > 1:
        rng = np.random.default_rng(0)
        drawn = [
            float(np.interp(rates, *_curve([scans[i] for i in draw])).mean())
            for draw in rng.integers(0, len(scans), (_DRAWS, len(scans)))
            if any(scans[i].true for i in draw)
        ]
        low, high = (float(q) for q in np.quantile(drawn, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)))
    return Froc(
        false_per_scan=tuple(false.tolist()),
        sensitivity=tuple(hit.tolist()),
        at_rates=tuple(at.tolist()),
        rates=tuple(float(rate) for rate in rates),
        cpm=float(at.mean()),
        low=low,
        high=high,
        scans=len(scans),
        true=sum(scan.true for scan in scans),
        candidates=sum(len(scan.hits) + len(scan.false) for scan in scans),
    )


def _curve(scans: Sequence[ScanDetections]) -> tuple[Floats, Floats]:
    """Return false positives per scan and sensitivity at each threshold, ascending from 0."""
    hits = np.sort(np.concatenate([scan.hits for scan in scans]))
    false = np.sort(np.concatenate([scan.false for scan in scans]))
    thresholds = np.unique(np.concatenate([hits, false]))[::-1]
    above_hits = len(hits) - np.searchsorted(hits, thresholds)
    above_false = len(false) - np.searchsorted(false, thresholds)
    rate = np.concatenate([[0], above_false]) / len(scans)
    share = np.concatenate([[0], above_hits]) / sum(scan.true for scan in scans)
    # Of several points at one rate, keep the highest sensitivity.
    last = np.append(rate[1:] > rate[:-1], True)
    return rate[last], share[last]


def read_findings(path: Path, value: str) -> Findings:
    """Read a csv file in LUNA16's format: seriesuid, coordX, coordY, coordZ, and a value column.

    Parameters
    ----------
    path
        The file.
    value
        Name of the value column: ``probability`` or ``diameter_mm``.

    Raises
    ------
    AnnotationError
        If the file cannot be read, lacks a column, or holds values that are not finite numbers.
    """
    columns = ("coordx", "coordy", "coordz", value.lower())
    scans, rows = [], []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            heads = [name.strip().lower() for name in reader.fieldnames or []]
            missing = sorted({"seriesuid", *columns} - set(heads))
            if missing:
                raise AnnotationError(
                    f"{path} has no column {missing[0]!r}; expected seriesuid, coordX, coordY, "
                    f"coordZ, {value}"
                )
            reader.fieldnames = heads
            for row in reader:
                scans.append((row["seriesuid"] or "").strip())
                rows.append([float(row[name] or "nan") for name in columns])
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise AnnotationError(f"{path} cannot be read as findings: {error}") from error
    numbers = np.array(rows, dtype=np.float64).reshape(-1, 4)
    broken = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(broken):
        raise AnnotationError(f"{path}: line {broken[0] + 2}: expected finite numbers")
    return Findings(np.array(scans, dtype=np.str_), numbers[:, :3], numbers[:, 3])


def froc_of_files(
    candidates: Path, true: Path, *, scans: Sequence[str] | None = None, exclude: Path | None = None
) -> Froc:
    """Compute the FROC curve of csv files in LUNA16's format.

    Parameters
    ----------
    candidates, true, exclude
        Candidates with ``probability``; true and excluded findings with ``diameter_mm``.
    scans
        Names of all scans; None uses those in the candidates and true findings, which misses scans
        with neither.

    Raises
    ------
    AnnotationError
        If a file cannot be read.
    """
    found, findings = read_findings(candidates, "probability"), read_findings(true, "diameter_mm")
    excluded = None if exclude is None else read_findings(exclude, "diameter_mm")
    names = sorted({*found.scan, *findings.scan}) if scans is None else list(scans)
    return froc(
        [
            match_detections(
                found.of(name), findings.of(name), excluded.of(name) if excluded else None
            )
            for name in map(str, names)
        ]
    )
