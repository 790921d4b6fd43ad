"""Owns what is known of a run from outside: read from journals and claims, never guessed."""

import time
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from wsi_seg.errors import StoreNotFoundError
from wsi_seg.inference.record import RunRecord, read_records
from wsi_seg.inference.unfinished import is_complete
from wsi_seg.object_path import place
from wsi_seg.store.claims import owners_of
from wsi_seg.store.journal import read_file, read_parts, read_units
from wsi_seg.store.names import JOURNAL, METADATA, PARTIAL, RUN, SHARED
from wsi_seg.store.presence import LEASE, Note, Watcher

State = Literal["done", "running", "stopped", "waiting", "failed"]


@dataclass(frozen=True, slots=True)
class SlideStatus:
    """Where one slide of a run is.

    Parameters
    ----------
    slide
        Its name.
    state
        ``done``; ``running``: a live process has some of it; ``stopped``: begun, and nobody has
        it; ``waiting``: not begun; ``failed``: see ``reason``.
    strips, strips_done
        Of the prediction; 0 where a run that is complete did not record them.
    owners
        Live processes that have parts of it.
    reason
        Why it failed.
    """

    slide: str
    state: State
    strips: int = 0
    strips_done: int = 0
    owners: tuple[str, ...] = ()
    reason: str = ""


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
class RunStatus:
    """What is done of a prediction collection, running, failed and left.

    Parameters
    ----------
    slides
        By name; those of runs that are not complete, and all that are done.
    processes
        Those that live.
    tiles, tiles_done
        Of the runs that are not complete; tiles of a begun slide count by its finished strips.
    seconds_left
        At the pace of the processes at work since the first of them started; None where nothing
        was done meanwhile, or nobody is at work.
    """

    slides: tuple[SlideStatus, ...]
    processes: tuple[ProcessStatus, ...]
    tiles: int
    tiles_done: float
    seconds_left: float | None

    def count(self, state: State) -> int:
        """Count the slides in a state."""
        return sum(slide.state == state for slide in self.slides)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return all(slide.state == "done" for slide in self.slides)

    def lines(self) -> list[str]:
        """Say it in sentences for people."""
        states: tuple[State, ...] = ("done", "running", "stopped", "waiting", "failed")
        counts = ", ".join(f"{self.count(state)} {state}" for state in states)
        lines = [f"{len(self.slides)} slides: {counts}"]
        if self.tiles:
            share = self.tiles_done / self.tiles
            left = "" if self.seconds_left is None else f", about {_spell(self.seconds_left)} left"
            lines.append(f"{self.tiles_done:.0f} of {self.tiles} tiles ({share:.0%}){left}")
        lines += [str(one) for one in self.processes]
        for slide in self.slides:
            if slide.state in ("running", "stopped"):
                where = f" by {', '.join(slide.owners)}" if slide.owners else ""
                strips = f"{slide.strips_done} of {slide.strips} strips"
                lines.append(f"{slide.slide}: {slide.state}{where}, {strips}")
            elif slide.state == "failed":
                lines.append(f"{slide.slide}: failed: {slide.reason}")
        return lines

    def to_json(self) -> dict[str, object]:
        """Give it as plain JSON values."""
        return asdict(self) | {"complete": self.is_complete}


def read_status(out: Path) -> RunStatus:
    """Read what is known of a prediction collection, whatever is at work in it meanwhile.

    Raises
    ------
    StoreNotFoundError
        If there is no such collection.

    Examples
    --------
    >>> read_status(Path("pred.zarr")).count("done")  # doctest: +SKIP
    12
    """
    out = place(out)
    if not (out / METADATA).is_file() and not (out / RUN).is_dir():
        raise StoreNotFoundError(f"there is no prediction at {out}; make it with `wsi-seg infer`")
    run = RunRecord("")
    for record in read_records(out):
        run = run.with_slides_of(record)
    processes = _processes(out / RUN)
    live = {one.name for one in processes}
    done = {
        folder.name
        for folder in out.iterdir()
        if not folder.name.startswith(".") and (folder / METADATA).is_file()
    }
    names = sorted({*done, *run.slides, *run.failures})
    slides = tuple(_slide(out, name, run, live) for name in names)
    tiles, finished = 0, 0.0
    for one in slides:
        if one.slide in run.slides:
            tiles += run.slides[one.slide][0]
            finished += run.slides[one.slide][0] * one.strips_done / max(1, one.strips)
    pace = _pace(out, slides, run, processes)
    left = (tiles - finished) / pace if pace else None
    return RunStatus(slides, processes, tiles, finished, left)


def _processes(folder: Path) -> tuple[ProcessStatus, ...]:
    """Find the processes that live, as far as can be known at one look."""
    watcher, found = Watcher(folder), list[ProcessStatus]()
    for name in watcher.owners():
        note, sign = watcher.note(name), watcher.sign(name)
        if note is None or sign is None or sign.locked is False:
            continue
        certain = sign.locked is True
        if certain or sign.silence <= LEASE:
            found.append(ProcessStatus(name, note, sign.silence, certain))
    return tuple(found)


def _slide(out: Path, name: str, run: RunRecord, live: Container[str]) -> SlideStatus:
    """Status of one slide: what is in its folder now or, where that is renamed meanwhile, done."""
    _, strips = run.slides.get(name, (0, 0))
    path = out / PARTIAL / name / JOURNAL
    parts, done = read_parts(path), read_units(path)
    holders, begun = owners_of(out / PARTIAL / name / SHARED), path.is_file()
    if is_complete(out, name):
        return SlideStatus(name, "done", strips, strips)
    left = ["begin"] if not begun else [] if len(done) < strips else ["finish"]
    for first, after in zip(parts, [*parts[1:], strips], strict=True):
        if any(str(index) not in done for index in range(first, after)):
            left.append(str(first))
    owners = sorted({holders[part] for part in left if holders.get(part) in live})
    state: State = "running" if owners else "stopped" if begun else "waiting"
    if not owners and name in run.failures:
        return SlideStatus(name, "failed", strips, len(done), reason=run.failures[name])
    return SlideStatus(name, state, strips, len(done), tuple(owners))


def _pace(
    out: Path, slides: Sequence[SlideStatus], run: RunRecord, processes: Sequence[ProcessStatus]
) -> float:
    """Tiles per second since the first process at work began; 0 where nothing was done since."""
    if not processes:
        return 0.0
    began = min(one.started for one in processes)
    tiles = 0.0
    for slide in slides:
        known, strips = run.slides.get(slide.slide, (0, 0))
        with suppress(OSError):
            if slide.state == "done":
                # Written when the last strip was on disk.
                if (out / slide.slide / JOURNAL).stat().st_mtime >= began:
                    tiles += known
                continue
            shared = out / PARTIAL / slide.slide / SHARED
            units = sum(len(read_file(shared / f"{one.name}.jsonl")) for one in processes)
            tiles += known * units / max(1, strips)
    return tiles / max(1.0, time.time() - began)


def _spell(seconds: float) -> str:
    """Spell a duration as people do: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
