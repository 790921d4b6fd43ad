"""Owns judging ratios: which moved beyond noise since the baseline, and which meet their goals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from measure import Ratio

# What the turns of one day do not show: two days differ by a tenth, small ratios by a bit.
_RELATIVE, _ABSOLUTE = 0.1, 0.02


@dataclass(frozen=True, slots=True)
class Goal:
    """What a ratio should be.

    Parameters
    ----------
    reason
        Why it is missed where it is missed.
    at_least, at_most
        One of them.
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
    """Ratios whose turns differ from the baseline's by more than noise, as sentences.

    Names that only one side has are left alone: machines have different peers.
    """
    lines = []
    for name in sorted(new.keys() & old.keys()):
        now, then = new[name], old[name]
        noise = max(_RELATIVE * abs(then.median), _ABSOLUTE)
        if now.low > then.high + noise or now.high < then.low - noise:
            lines.append(f"{name}: {then.median:.3g} -> {now.median:.3g}")
    return lines


def goals_met(ratios: Mapping[str, Ratio], goals: Mapping[str, Goal]) -> Iterator[str]:
    """Say of each goal that was measured whether it is met, and why not."""
    for name, goal in goals.items():
        if name not in ratios:
            continue
        median = ratios[name].median
        if goal.is_met(median):
            yield f"{name}: goal {goal}, reached {median:.3g}"
        else:
            why = goal.reason or "no reason is known: look into it"
            yield f"{name}: goal {goal}, MISSED with {median:.3g} ({why})"
