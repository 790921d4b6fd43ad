"""Owns drawing progress: bars on a terminal, occasional lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsi_seg.cli.lines import wrapped

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import Task, TaskID

# Interval of plain lines, and the minimum interval of lines that mark another tenth.
_LINE_EVERY_S = 10.0
_TENTH_EVERY_S = 2.0

_TITLE_CHARACTERS = 20


class RichProgress:
    """Progress on stderr: bars with rate and time left on a terminal, plain lines elsewhere.

    Steps may be nested; `advance` and `note` apply to the innermost one.
    """

    def __init__(self) -> None:
        self._steps: _Bars | _Lines = _Bars() if sys.stderr.isatty() else _Lines()

    def start(self, title: str, total: float, unit: str) -> None:
        """Start a step of ``total`` units; 0 means unknown."""
        self._steps.start(title, total, unit)

    def advance(self, amount: float) -> None:
        """Advance the innermost step by ``amount`` units."""
        self._steps.advance(amount)

    def note(self, text: str) -> None:
        """Show a note about the innermost step, or about what runs before the first step."""
        self._steps.note(text)

    def finish(self) -> None:
        """Finish the innermost step."""
        self._steps.finish()

    def close(self) -> None:
        """Finish all steps and restore the terminal."""
        self._steps.close()


class _Bars:
    """Bars of rich, one per open step."""

    def __init__(self) -> None:
        self._bars: RichBars | None = None
        self._open: list[TaskID] = []

    def start(self, title: str, total: float, unit: str) -> None:
        if self._bars is None:
            self._bars = _rich_bars()
            self._bars.start()
        task = self._bars.add_task(_shortened(title), total=total or None, unit=unit, note="")
        self._open.append(task)

    def advance(self, amount: float) -> None:
        if self._bars is not None and self._open:
            self._bars.advance(self._open[-1], amount)

    def note(self, text: str) -> None:
        if self._bars is None or not self._open:
            _write(text)
        elif text:
            self._bars.update(self._open[-1], note=text)

    def finish(self) -> None:
        if self._bars is None or not self._open:
            return
        task = self._open.pop()
        if self._open:
            self._bars.remove_task(task)
        else:
            self._bars.stop_task(task)
            self.close()

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._open.clear()


def _rich_bars() -> "RichBars":
    """Make bars of at most 80 characters: title, bar, count, rate, elapsed and remaining time."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import ProgressColumn as Column
    from rich.text import Text

    class Words(Column):
        """A column of text that a function computes from the task."""

        def __init__(self, words: Callable[["Task"], str], style: str) -> None:
            super().__init__()
            self._words, self._style = words, style

        def render(self, task: "Task") -> Text:
            return Text(self._words(task), style=self._style, no_wrap=True, justify="right")

    class Bars(Progress):
        """Bars with the note of the innermost step below them."""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            notes = [str(task.fields["note"]) for task in self.tasks if task.fields["note"]]
            if notes:
                yield Text(f"  {notes[-1]}", style="dim", no_wrap=True, overflow="ellipsis")

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        Words(lambda task: counted(task.completed, task.total or 0), "progress.download"),
        Words(
            lambda task: rated(task.finished_speed or task.speed, task.fields["unit"]),
            "progress.data.speed",
        ),
        TimeElapsedColumn(),
        Words(lambda task: left(task.time_remaining), "progress.remaining"),
        console=Console(stderr=True),
        redirect_stdout=False,  # stdout carries results, perhaps into a pipe
    )


@dataclass(slots=True)
class _Step:
    title: str
    total: float
    unit: str
    started: float
    printed: float
    done: float = 0.0
    tenths: int = 0
    note: str = ""


class _Lines:
    """Plain lines, without control codes, for logs and pipes."""

    def __init__(self) -> None:
        self._open: list[_Step] = []

    def start(self, title: str, total: float, unit: str) -> None:
        now = time.monotonic()
        self._open.append(_Step(title, total, unit, started=now, printed=now))

    def advance(self, amount: float) -> None:
        if not self._open:
            return
        step = self._open[-1]
        step.done += amount
        now = time.monotonic()
        silent_s = now - step.printed
        tenths = int(10 * step.done / step.total) if step.total else 0
        if silent_s >= _LINE_EVERY_S or (tenths > step.tenths and silent_s >= _TENTH_EVERY_S):
            step.printed, step.tenths = now, tenths
            _write(_line(step, now))

    def note(self, text: str) -> None:
        if self._open and text:  # notes before the first step are for terminals only
            self._open[-1].note = text

    def finish(self) -> None:
        if not self._open:
            return
        step = self._open.pop()
        elapsed = time.monotonic() - step.started
        # Short and nested steps would clutter a log.
        if elapsed >= _TENTH_EVERY_S and not self._open:
            speed = step.done / elapsed
            _write(
                f"{step.title}: {number(step.done)} {step.unit} in {clock(elapsed)}, "
                f"{rated(speed, step.unit)}"
            )

    def close(self) -> None:
        self._open.clear()


def _line(step: _Step, now: float) -> str:
    elapsed = now - step.started
    speed = step.done / elapsed if elapsed else None
    remaining = (step.total - step.done) / speed if speed and step.total else None
    share = f"{100 * step.done / step.total:.0f} %, " if step.total else ""
    return (
        f"{step.title}: {share}{counted(step.done, step.total)} {step.unit}, "
        f"{rated(speed, step.unit)}, {clock(elapsed)} elapsed, {left(remaining)}"
        f"{'; ' + step.note if step.note else ''}"
    )


def _write(line: str) -> None:
    sys.stderr.write(wrapped(line, sys.stderr) + "\n")
    sys.stderr.flush()


def _shortened(title: str) -> str:
    if len(title) <= _TITLE_CHARACTERS:
        return title
    return title[: _TITLE_CHARACTERS - 1] + "…"


def number(value: float) -> str:
    """Format a count in at most five characters: ``87``, ``41.2``, ``12345``, ``1.23M``."""
    if value >= 99_999.5:
        for divisor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= divisor:
                return f"{value / divisor:.3g}{suffix}"
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}"


def counted(done: float, total: float) -> str:
    """Format a count as ``412/5678``, or without the total if that is 0."""
    return f"{number(done)}/{number(total)}" if total else number(done)


def rated(speed: float | None, unit: str) -> str:
    """Format a rate as ``41.2 tiles/s``, with a dash if it is unknown."""
    if not speed:
        return f"- {unit}/s"
    written = f"{speed:.3g}" if speed < 1 else number(speed)
    return f"{written} {unit}/s"


def clock(seconds: float) -> str:
    """Format a duration as ``1:05`` or ``2:01:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def left(seconds: float | None) -> str:
    """Format the remaining time as ``1:05 left``, or ``-:-- left`` if it is unknown."""
    return f"{'-:--' if seconds is None else clock(seconds)} left"
