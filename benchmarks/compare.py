"""Owns comparing ratios with the baseline and with their goals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from measure import Ratio

# Variation between days, which the turns of one day do not show.
_RELATIVE, _ABSOLUTE = 0.1, 0.02


@dataclass(frozen=True, slots=True)
class Goal:
    """Goal of a ratio.

    Parameters
    ----------
    reason
        Why the goal is missed, if it is.
    at_least, at_most
        Bound of the ratio; exactly one is given.
    """

    reason: str
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, ratio: float) -> bool:
        """Whether a median reaches it."""
        low = self.at_least is None or ratio >= self.at_least
        return low and (self.at_most is None or ratio <= self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return f"at most {self.at_most:g}"


def moved(new: Mapping[str, Ratio], old: Mapping[str, Ratio]) -> list[str]:
    """List the ratios whose turns differ from the baseline's by more than noise.

    Ratios that only one side has are skipped, because machines have different peers.
    """
    lines = []
    for name in sorted(new.keys() & old.keys()):
        now, then = new[name], old[name]
        noise = max(_RELATIVE * abs(then.median), _ABSOLUTE)
        if now.low > then.high + noise or now.high < then.low - noise:
            lines.append(f"{name}: {then.median:.3g} -> {now.median:.3g}")
    return lines


def goals_met(ratios: Mapping[str, Ratio], goals: Mapping[str, Goal]) -> Iterator[str]:
    """List for each measured goal whether it is met, with the reason if it is not."""
    for name, goal in goals.items():
        if name not in ratios:
            continue
        median = ratios[name].median
        if goal.is_met(median):
            yield f"{name}: goal {goal}, reached {median:.3g}"
        else:
            why = goal.reason or "no reason is known: look into it"
            yield f"{name}: goal {goal}, MISSED with {median:.3g} ({why})"
