"""Owns the report of `wsi-seg annotate`: objects drawn, repairs, and what was skipped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from wsi_seg.batch import elsewhere_lines, require_none
from wsi_seg.counts import counted, list_names


@dataclass(frozen=True, slots=True)
class AnnotateReport:
    """Result of `annotate`.

    Parameters
    ----------
    objects
        Number of objects drawn, by slide.
    classes
        Class names, in the order of their ids.
    repairs
        What was repaired, by slide.
    without
        Slides without annotations.
    unused
        Files that match no slide.
    notes
        What was not drawn, one sentence each.
    failures
        Reasons why slides were not annotated, by slide.
    elsewhere
        Number of slides that other processes annotate, or have annotated.
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
        """Return the report as JSON values."""
        return asdict(self)

    def require_whole(self) -> None:
        """Raise `BatchError` if some slides failed; all others are done."""
        require_none(self.failures, done=len(self.objects))

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        total = sum(self.objects.values())
        names = ", ".join(self.classes)
        lines = [
            f"{counted(total, 'object')} on {counted(len(self.objects), 'slide')}, classes {names}"
        ]
        for name, repairs in self.repairs.items():
            lines.append(f"{name}: {counted(len(repairs), 'repair')}, the first: {repairs[0]}")
        lines += [*self.notes, *elsewhere_lines(self.elsewhere)]
        if self.without:
            lines.append(
                f"slides without annotations: {list_names(self.without)} (if they have no objects, "
                "use --unlisted-empty)"
            )
        if self.unused:
            lines.append(f"files that match no slide: {list_names(self.unused)}")
        return lines
