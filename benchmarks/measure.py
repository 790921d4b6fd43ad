"""Owns the measurement and output of benchmarks: ratios of alternating turns."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratio over several turns.

    Parameters
    ----------
    median, low, high
        Median, minimum and maximum of the turns.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, above: Sequence[float], below: Sequence[float]) -> "Ratio":
        """Compute the ratio of two alternating measurements in each turn."""
        turns = [a / b for a, b in zip(above, below, strict=True)]
        return cls(*(round(x, 4) for x in (statistics.median(turns), min(turns), max(turns))))

    @classmethod
    def once(cls, value: float) -> "Ratio":
        """Make a ratio of a single turn, or one that does not depend on time."""
        return cls(*[round(value, 4)] * 3)

    def to_json(self) -> dict[str, float]:
        """Return JSON values."""
        return asdict(self)


@dataclass(slots=True)
class Results:
    """Results of one benchmark.

    Parameters
    ----------
    ratios
        Ratios, which are comparable between days, and roughly between machines.
    figures
        Values of this machine: seconds, rates, sizes.
    """

    ratios: dict[str, Ratio] = field(default_factory=dict)
    figures: dict[str, object] = field(default_factory=dict)

    def __or__(self, other: "Results") -> "Results":
        return Results(self.ratios | other.ratios, self.figures | other.figures)

    def show(self, *, as_json: bool) -> None:
        """Print all results, as a single line of JSON or one line each."""
        if as_json:
            ratios = {name: ratio.to_json() for name, ratio in self.ratios.items()}
            print(json.dumps({"ratios": ratios, "figures": self.figures}))
            return
        for name, value in self.figures.items():
            print(f"{name}: {value}")
        for name, r in self.ratios.items():
            turns = "" if r.low == r.high else f" ({r.low:.3g} to {r.high:.3g})"
            print(f"{name}: {r.median:.3g}{turns}")


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(
    works: Mapping[str, Callable[[int], float]], turns: int, *, warm: int = 0
) -> dict[str, list[float]]:
    """Run works alternately, A B A B, and collect their results.

    Parameters
    ----------
    works
        Functions of the number of the turn.
    turns
        Number of turns that count.
    warm
        Number of warm-up turns that do not count.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + warm):
        for name, work in works.items():
            value = work(turn)
            if turn >= warm:
                found[name].append(value)
    return found


def medians(found: Mapping[str, Sequence[float]], unit: str, digits: int = 1) -> dict[str, object]:
    """Return the median of each series."""
    return {
        f"{name}, {unit}": round(statistics.median(values), digits)
        for name, values in found.items()
    }
