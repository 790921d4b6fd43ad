"""Owns what is known of commands from outside: read from claims and journals, never guessed.

What is written changes while it is read. So whatever a process has is read before the list of
those that live, and again where its owner is not on that list: a process that has ended changes
nothing any more.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from wsi_seg.files.shared import names_in
from wsi_seg.store.claims import claims_in
from wsi_seg.store.names import RUN, TURNS
from wsi_seg.store.presence import LEASE, Note, Watcher
from wsi_seg.store.turn_files import Outcome, TurnFiles

State = Literal["done", "running", "stopped", "waiting", "failed"]
_STATES: tuple[State, ...] = ("done", "running", "stopped", "waiting", "failed")


@dataclass(frozen=True, slots=True)
class SlideStatus:
    """Where one slide of a command is.

    Parameters
    ----------
    slide
        Its name.
    state
        ``done``; ``running``: a live process has some of it; ``stopped``: begun, and nobody has
        it; ``waiting``: not begun; ``failed``: see ``reason``.
    owners
        Live processes that have parts of it.
    since
        When it was taken, in seconds since 1970 by the clock of the file's server; None where it
        is not running, or is shared by strips.
    strips, strips_done
        Of a prediction; 0 where a run that is complete did not record them, and of other commands.
    reason
        Why it failed.
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
        strips = f", {self.strips_done} of {self.strips} strips" if self.strips else ""
        return f"{self.slide}: {self.state}{where}{strips}"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process at work.

    Parameters
    ----------
    name
        Of its file.
    note
        What it says about itself.
    silence
        Seconds since its last sign.
    certain
        Whether the kernel says that it lives. On other machines a process that was killed is
        taken to live until its last sign is `LEASE` seconds old.
    """

    name: str
    note: Note
    silence: float
    certain: bool

    @property
    def started(self) -> float:
        """Seconds since 1970 at which it started, by its clock."""
        return datetime.strptime(self.note.started, "%Y-%m-%d %H:%M:%S %z").timestamp()

    def __str__(self) -> str:
        doubt = "" if self.certain else f", counts as ended {LEASE:.0f} s after that"
        return f"{self.note}: last sign {self.silence:.0f} s ago{doubt}"


@dataclass(frozen=True, slots=True)
class CommandStatus:
    """What is done of a command, running, failed and left.

    Parameters
    ----------
    verb
        Such as ``tile``.
    slides
        By name; none are known of a command that does not share its work, but for ``infer``.
    processes
        Those that live.
    work, work_done
        Of the slides that have not failed: tiles of ``infer``, bytes of ``tile``, pixels of level
        0 of others.
    seconds_left
        At the pace of the processes at work since the first of them started; None where nothing
        was done meanwhile, or nobody is at work.
    """

    verb: str
    slides: tuple[SlideStatus, ...]
    processes: tuple[ProcessStatus, ...]
    work: float = 0.0
    work_done: float = 0.0
    seconds_left: float | None = None

    def count(self, state: State) -> int:
        """Count the slides in a state."""
        return sum(slide.state == state for slide in self.slides)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        done = all(slide.state == "done" for slide in self.slides)
        return done and (bool(self.slides) or not self.processes)

    def lines(self) -> list[str]:
        """Say it in sentences for people."""
        counts = ", ".join(f"{self.count(state)} {state}" for state in _STATES)
        lines = [f"{self.verb}: {len(self.slides)} slides: {counts}"]
        if not self.slides:
            lines = [f"{self.verb}: at work; nothing is known of its slides"]
        if self.work and not self.is_complete:
            left = "" if self.seconds_left is None else f", about {_spell(self.seconds_left)} left"
            lines.append(f"{self.work_done / self.work:.0%} of the work is done{left}")
        lines += [str(one) for one in self.processes]
        lines += [str(one) for one in self.slides if one.state not in ("done", "waiting")]
        return lines


class Held(Protocol):
    """What was found of a slide, and who has some of it that is not done."""

    @property
    def holders(self) -> frozenset[str]:
        """Names of processes, dead or alive."""


def settled[Found: Held](
    folder: Path, look: Callable[[], Mapping[str, Found]]
) -> tuple[Mapping[str, Found], tuple[ProcessStatus, ...]]:
    """Look at slides, then at who lives; and again until those that hold some live, or are dead.

    Parameters
    ----------
    folder
        Collection.
    look
        Finds what is known of all slides.

    Returns
    -------
    tuple
        What was found, and all processes at work in the folder. A holder that is not among them
        had ended before the last look.
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
    """Find the processes at work in a folder that live, as far as can be known at one look."""
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
    """Pick the processes of a command."""
    return tuple(one for one in processes if one.note.verb == f"wsi-seg {verb}")


def shared_commands(folder: Path) -> list[CommandStatus]:
    """Read what is known of the commands that processes share in a collection, but for ``infer``.

    Examples
    --------
    >>> [command.count("failed") for command in shared_commands(Path("store.zarr"))]
    []
    """
    found = []
    for name in sorted(names_in(folder / TURNS)):
        if (files := TurnFiles.of(folder / TURNS / name)) is not None:
            command = _command(folder, name.rpartition("-")[0], files)
            if files.are_kept:  # another command of the same verb may have removed them meanwhile
                found.append(command)
    return found


@dataclass(frozen=True, slots=True)
class _Turn:
    """What was found of a slide: who has it and since when, and what became of it."""

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
        claims = claims_in(files.claims)  # first: what is done meanwhile has an outcome then
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
    """Seconds since the first of these processes started, by the clocks of both; 1 at least."""
    return max([1.0, *(time.time() - one.started for one in processes)])


def _spell(seconds: float) -> str:
    """Spell a duration as people do: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
