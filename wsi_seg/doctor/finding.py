"""Owns the findings of an examination, and their text in 80 columns."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

_COLUMNS = 80

# ``bad``: something required does not work; ``note``: something optional is missing or slow.
Verdict = Literal["ok", "note", "bad"]

# Marks of verdicts in plain text.
WORDS: Mapping[Verdict, str] = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Parameters
    ----------
    name
        What was checked.
    value
        What was found.
    verdict
        Whether it works.
    advice
        Consequence, and what to do.
    """

    name: str
    value: str
    verdict: Verdict = "ok"
    advice: str = ""

    def lines(self, mark: str) -> list[str]:
        """Format the finding as lines of at most 80 columns, the first one with a mark."""
        text = f"{self.name}: {self.value}"
        if self.advice:
            text += f"; {self.advice}"
        # A mark can contain colour codes, so its length is not its width.
        wrapped = textwrap.wrap(text, _COLUMNS - 7, subsequent_indent="  ", break_on_hyphens=False)
        return [f"  {mark} {wrapped[0]}", *(f"       {line}" for line in wrapped[1:])]


@dataclass(frozen=True, slots=True)
class Examination:
    """Findings about this machine.

    Parameters
    ----------
    parts
        Findings by heading.
    """

    parts: Mapping[str, tuple[Finding, ...]]

    @property
    def works(self) -> bool:
        """Whether everything required works."""
        return not self._named("bad")

    def _named(self, verdict: Verdict) -> list[str]:
        parts = self.parts.values()
        return [found.name for part in parts for found in part if found.verdict == verdict]

    def lines(self, marks: Mapping[Verdict, str] = WORDS) -> list[str]:
        """Format findings under their headings as lines of text.

        Parameters
        ----------
        marks
            Mark of each verdict, four columns wide.
        """
        lines = []
        for heading, part in self.parts.items():
            lines.append(heading)
            for found in part:
                lines += found.lines(marks[found.verdict])
        bad, notes = self._named("bad"), self._named("note")
        end = f"does not work: {', '.join(bad)}" if bad else "all requirements are met"
        if notes:
            end += f"; notes: {', '.join(notes)}"
        return lines + textwrap.wrap(end, _COLUMNS)

    def to_json(self) -> dict[str, object]:
        """Return the findings as JSON values."""
        parts = {name: [asdict(found) for found in part] for name, part in self.parts.items()}
        return {"works": self.works, "parts": parts}
