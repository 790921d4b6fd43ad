"""Owns what `wsi-seg annotate` reports: objects drawn, repairs, and what was left out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from wsi_seg.annotations.names import named
from wsi_seg.batch import elsewhere_lines, require_none


@dataclass(frozen=True, slots=True)
class AnnotateReport:
    """What was annotated.

    Parameters
    ----------
    objects
        Number of objects drawn, by slide.
    classes
        Names of their classes, in the order of the ids.
    repairs
        What had to be repaired, by file.
    without
        Slides without annotations.
    unused
        Files that fit no slide.
    notes
        What is not drawn, one sentence each.
    failures
        Why files of other slides were not drawn, by slide.
    elsewhere
        Number of slides that others of several processes draw into, or have.
    """

    objects: dict[str, int]
    classes: tuple[str, ...]
    repairs: dict[str, tuple[str, ...]]
    without: tuple[str, ...]
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    elsewhere: int = 0

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise a `BatchError` if files of some slides cannot be read; all others are done."""
        require_none(self.failures, done=len(self.objects))

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        total = sum(self.objects.values())
        names = ", ".join(self.classes)
        lines = [f"{total} objects on {len(self.objects)} slides, classes {names}"]
        for name, repairs in self.repairs.items():
            lines.append(f"{name}: {len(repairs)} repairs, the first: {repairs[0]}")
        lines += [*self.notes, *elsewhere_lines(self.elsewhere)]
        if self.without:
            lines.append(
                f"slides without annotations: {named(self.without)} (if nothing is on them: "
                "--unlisted-empty)"
            )
        if self.unused:
            lines.append(f"files that fit no slide: {named(self.unused)}")
        return lines
