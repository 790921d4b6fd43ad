"""Owns the status of running commands, read from their claims and journals.

These files change while they are read. So claims are read before the list of live processes, and
again if the holder of a claim is not on that list: a process that exited changes nothing more.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from wsi_seg.counts import counted
from wsi_seg.files.shared import names_in
from wsi_seg.store.claims import claims_in
from wsi_seg.store.names import RUN, TURNS
from wsi_seg.store.presence import LEASE, Note, Watcher
from wsi_seg.store.turn_files import Outcome, TurnFiles

State = Literal["done", "running", "stopped", "waiting", "failed"]
_STATES: tuple[State, ...] = ("done", "running", "stopped", "waiting", "failed")


@dataclass(frozen=True, slots=True)
class SlideStatus:
    """Status of one slide of a command.

    Parameters
    ----------
    slide
        Name of the slide.
    state
        ``done``; ``running``: a live process has claimed it or a part of it; ``stopped``: started
        by a process that exited; ``waiting``: not started; ``failed``: see ``reason``.
    owners
        Live processes that have claimed it or parts of it.
    since
        Time of the claim in seconds since 1970, by the clock of the file server; None if it is not
        running, or is shared by strips.
    strips, strips_done
        Number of strips of a prediction; 0 for other commands and complete runs that did not
        record them.
    reason
        Error message of a failed slide.
    """

    slide: str
    state: State
    owners: tuple[str, ...] = ()
    since: float | None = None
    strips: int = 0
    strips_done: int = 0
    reason: str = ""

    def __str__(self) -> str:
        if self.state == "failed":
            return f"{self.slide}: failed: {self.reason}"
        where = f" by {', '.join(self.owners)}" if self.owners else ""
        if self.since is not None:
            where += time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(self.since))
        strips = f", {self.strips_done} of {counted(self.strips, 'strip')}" if self.strips else ""
        return f"{self.slide}: {self.state}{where}{strips}"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """Status of a running process.

    Parameters
    ----------
    name
        Name of its presence file.
    note
        Its description of itself.
    silence
        Seconds since its last heartbeat.
    certain
        Whether a lock proves that it is alive. On other machines a killed process counts as alive
        until its last heartbeat is `LEASE` seconds old.
    """

    name: str
    note: Note
    silence: float
    certain: bool

    @property
    def started(self) -> float:
        """Start time in seconds since 1970, by the clock of its machine."""
        return datetime.strptime(self.note.started, "%Y-%m-%d %H:%M:%S %z").timestamp()

    def __str__(self) -> str:
        doubt = "" if self.certain else f", counts as ended {LEASE:.0f} s after that"
        return f"{self.note}: last heartbeat {self.silence:.0f} s ago{doubt}"


@dataclass(frozen=True, slots=True)
class CommandStatus:
    """Status of a command: its slides, processes and remaining time.

    Parameters
    ----------
    verb
        Name of the command, such as ``tile``.
    slides
        Sorted by name; empty for commands other than ``infer`` that do not share their work.
    processes
        Live processes.
    work, work_done
        Total and completed work of slides that have not failed: tiles for ``infer``, bytes for
        ``tile``, level-0 pixels for other commands.
    seconds_left
        Estimate from the average speed of the live processes; None if they have not completed any
        work yet, or there are none.
    """

    verb: str
    slides: tuple[SlideStatus, ...]
    processes: tuple[ProcessStatus, ...]
    work: float = 0.0
    work_done: float = 0.0
    seconds_left: float | None = None

    def count(self, state: State) -> int:
        """Return the number of slides in a state."""
        return sum(slide.state == state for slide in self.slides)

    @property
    def is_complete(self) -> bool:
        """Whether all slides are done."""
        done = all(slide.state == "done" for slide in self.slides)
        return done and (bool(self.slides) or not self.processes)

    def lines(self) -> list[str]:
        """Return the status as lines of text."""
        counts = ", ".join(f"{self.count(state)} {state}" for state in _STATES)
        lines = [f"{self.verb}: {counted(len(self.slides), 'slide')}: {counts}"]
        if not self.slides:
            lines = [f"{self.verb}: running; it does not record its slides"]
        if self.work and not self.is_complete:
            left = "" if self.seconds_left is None else f", about {_spell(self.seconds_left)} left"
            lines.append(f"{self.work_done / self.work:.0%} of the work is done{left}")
        lines += [str(one) for one in self.processes]
        lines += [str(one) for one in self.slides if one.state not in ("done", "waiting")]
        return lines


class Held(Protocol):
    """State of a slide, with the processes that hold unfinished parts of it."""

    @property
    def holders(self) -> frozenset[str]:
        """Names of processes, which may have exited."""


def settled[Found: Held](
    folder: Path, look: Callable[[], Mapping[str, Found]]
) -> tuple[Mapping[str, Found], tuple[ProcessStatus, ...]]:
    """Read slides and processes until each holder is alive or exited before the last read.

    Parameters
    ----------
    folder
        Collection.
    look
        Reads the state of all slides.

    Returns
    -------
    tuple
        State of all slides, and all live processes in the folder. A holder that is not among them
        exited before the slides were last read.
    """
    found, ended = look(), set[str]()
    while True:
        processes = processes_in(folder)
        live = {one.name for one in processes}
        absent = {name for one in found.values() for name in one.holders} - live
        if absent <= ended:
            return found, processes
        found, ended = look(), ended | absent


def processes_in(folder: Path) -> tuple[ProcessStatus, ...]:
    """Return the processes in a folder that are alive, as far as a single check can show."""
    watcher, found = Watcher(folder / RUN), list[ProcessStatus]()
    for name in watcher.owners():
        note, sign = watcher.note(name), watcher.sign(name)
        if note is None or sign is None or sign.locked is False:
            continue
        certain = sign.locked is True
        if certain or sign.silence <= LEASE:
            found.append(ProcessStatus(name, note, sign.silence, certain))
    return tuple(found)


def of_verb(processes: Sequence[ProcessStatus], verb: str) -> tuple[ProcessStatus, ...]:
    """Return the processes of a command."""
    return tuple(one for one in processes if one.note.verb == f"wsi-seg {verb}")


def shared_commands(folder: Path) -> list[CommandStatus]:
    """Return the status of all shared commands in a collection except ``infer``.

    Examples
    --------
    >>> [command.count("failed") for command in shared_commands(Path("store.zarr"))]
    []
    """
    found = []
    for name in sorted(names_in(folder / TURNS)):
        if (files := TurnFiles.of(folder / TURNS / name)) is not None:
            command = _command(folder, name.rpartition("-")[0], files)
            if files.started:  # another run of this verb may have removed them
                found.append(command)
    return found


@dataclass(frozen=True, slots=True)
class _Turn:
    """State of a slide: claim (holder and time) and outcome, if any."""

    claim: tuple[str, float] | None
    outcome: Outcome | None

    @property
    def holders(self) -> frozenset[str]:
        return frozenset() if self.claim is None or self.outcome else frozenset({self.claim[0]})

    def status(self, name: str, live: set[str], files: TurnFiles) -> SlideStatus:
        if self.outcome == "result":
            return SlideStatus(name, "done")
        if self.outcome == "failure":
            return SlideStatus(name, "failed", reason=str(files.read(name, "failure") or ""))
        if self.claim is None:
            return SlideStatus(name, "waiting")
        holder, since = self.claim
        if holder in live:
            return SlideStatus(name, "running", (holder,), since)
        return SlideStatus(name, "stopped")


def _command(folder: Path, verb: str, files: TurnFiles) -> CommandStatus:
    def look() -> dict[str, _Turn]:
        claims = claims_in(files.claims)  # first: slides completed after this have an outcome
        outcomes = files.outcomes()
        return {
            name: _Turn(claims.get(part), outcomes.get(name)) for name, part in files.parts.items()
        }

    found, processes = settled(folder, look)
    live, own = {one.name for one in processes}, of_verb(processes, verb)
    slides = tuple(found[name].status(name, live, files) for name in sorted(found))
    work = done = 0.0
    for slide in slides:
        if slide.state != "failed":
            work += files.slides[slide.slide]
            done += files.slides[slide.slide] * (slide.state == "done")
    pace = sum(files.work_of(one.name) for one in own) / seconds_at_work(own)
    left = (work - done) / pace if pace else None
    return CommandStatus(verb, slides, own, work, done, left)


def seconds_at_work(processes: Sequence[ProcessStatus]) -> float:
    """Return the seconds since the first of these processes started; at least 1."""
    return max([1.0, *(time.time() - one.started for one in processes)])


def _spell(seconds: float) -> str:
    """Format a duration, such as 40 s, 12 min or 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
