"""Owns what an examination finds, and how it is shown in 80 columns."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

_COLUMNS = 80

# ``bad``: something needed does not work; ``note``: something optional is absent, or slow.
Verdict = Literal["ok", "note", "bad"]

# How verdicts are marked where text is not for a terminal.
WORDS: Mapping[Verdict, str] = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    name
        What it is.
    value
        What was found.
    verdict
        Whether it works.
    advice
        What follows from it, and what to do.
    """

    name: str
    value: str
    verdict: Verdict = "ok"
    advice: str = ""

    def lines(self, mark: str) -> list[str]:
        """Give it as lines of at most 80 columns, the first one behind a mark."""
        text = f"{self.name}: {self.value}"
        if self.advice:
            text += f"; {self.advice}"
        # The mark's width is not its length: it may have the codes of a colour.
        wrapped = textwrap.wrap(text, _COLUMNS - 7, subsequent_indent="  ", break_on_hyphens=False)
        return [f"  {mark} {wrapped[0]}", *(f"       {line}" for line in wrapped[1:])]


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found of this machine.

    Parameters
    ----------
    parts
        Findings by heading.
    """

    parts: Mapping[str, tuple[Finding, ...]]

    @property
    def works(self) -> bool:
        """Whether all that is needed works."""
        return not self._named("bad")

    def _named(self, verdict: Verdict) -> list[str]:
        parts = self.parts.values()
        return [found.name for part in parts for found in part if found.verdict == verdict]

    def lines(self, marks: Mapping[Verdict, str] = WORDS) -> list[str]:
        """Give findings for people, under their headings.

        Parameters
        ----------
        marks
            How each verdict is marked; four columns wide.
        """
        lines = []
        for heading, part in self.parts.items():
            lines.append(heading)
            for found in part:
                lines += found.lines(marks[found.verdict])
        bad, notes = self._named("bad"), self._named("note")
        end = f"does not work: {', '.join(bad)}" if bad else "all that is needed works"
        if notes:
            end += f"; to note: {', '.join(notes)}"
        return lines + textwrap.wrap(end, _COLUMNS)

    def to_json(self) -> dict[str, object]:
        """Give findings as plain JSON values."""
        parts = {name: [asdict(found) for found in part] for name, part in self.parts.items()}
        return {"works": self.works, "parts": parts}
