"""Owns the status of all commands on a collection, and of ``infer`` in particular.

See `store.status` for how it stays consistent while processes write.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from wsi_seg.counts import list_names
from wsi_seg.errors import StoreNotFoundError
from wsi_seg.files.object_path import place
from wsi_seg.files.shared import names_in
from wsi_seg.inference.record import RunRecord, read_records
from wsi_seg.inference.unfinished import is_complete
from wsi_seg.store.claims import owners_of
from wsi_seg.store.journal import read_file, read_parts, read_units
from wsi_seg.store.names import JOURNAL, METADATA, PARTIAL, RUN, SHARED
from wsi_seg.store.status import (
    CommandStatus,
    ProcessStatus,
    SlideStatus,
    State,
    of_verb,
    processes_in,
    seconds_at_work,
    settled,
    shared_commands,
)


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """Finished, running and remaining work of all commands on a collection.

    Parameters
    ----------
    commands
        Commands that are running, or of which there are records: ``infer`` first, others by verb.
    """

    commands: tuple[CommandStatus, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all commands are complete."""
        return all(command.is_complete for command in self.commands)

    @property
    def slides(self) -> tuple[SlideStatus, ...]:
        """Slides of all commands."""
        return tuple(slide for command in self.commands for slide in command.slides)

    def of(self, verb: str) -> CommandStatus:
        """Return the status of a command; an unknown command has no slides."""
        known = {command.verb: command for command in self.commands}
        return known.get(verb, CommandStatus(verb, (), ()))

    def lines(self) -> list[str]:
        """Format the status as lines of text."""
        if not self.commands:
            return ["no command is running, and no work is unfinished"]
        return [line for command in self.commands for line in command.lines()]

    def to_json(self) -> dict[str, object]:
        """Return the status as JSON values."""
        commands = [asdict(one) | {"complete": one.is_complete} for one in self.commands]
        return {"commands": commands, "complete": self.is_complete}


def read_status(path: Path) -> CollectionStatus:
    """Read the status of all commands on a collection, which may be running.

    Raises
    ------
    StoreNotFoundError
        If there is no collection at this path.

    Examples
    --------
    >>> read_status(Path("pred.zarr")).of("infer").count("done")  # doctest: +SKIP
    12
    """
    path = place(path)
    if not (path / METADATA).is_file() and not (path / RUN).is_dir():
        raise StoreNotFoundError(
            f"there is no collection at {path}; expected one that `wsi-seg tile` or `wsi-seg "
            "infer` makes; evaluate and export record their work in that of the predictions; next "
            f"to this path: {list_names(_collections_next_to(path))}"
        )
    commands = [one for one in (_infer_status(path), *shared_commands(path)) if one.slides]
    known = {command.verb for command in commands}
    # Commands that started meanwhile appear in the next status.
    processes = processes_in(path)
    others = {one.note.verb.removeprefix("wsi-seg ") for one in processes} - known
    commands += [CommandStatus(verb, (), of_verb(processes, verb)) for verb in sorted(others)]
    return CollectionStatus(tuple(commands))


def _collections_next_to(path: Path) -> list[str]:
    """List the collections in the parent folder of a path."""
    with suppress(OSError):
        return sorted(str(one) for one in path.parent.iterdir() if (one / METADATA).is_file())
    return []


@dataclass(frozen=True, slots=True)
class _Prediction:
    """State of a slide's prediction, its numbers of strips, and the processes that hold parts."""

    complete: bool
    begun: bool
    strips: int
    strips_done: int
    holders: frozenset[str]

    def status(self, name: str, live: set[str], failures: Mapping[str, str]) -> SlideStatus:
        strips, done = self.strips, self.strips_done
        if self.complete:
            return SlideStatus(name, "done", strips=strips, strips_done=strips)
        owners = tuple(sorted(self.holders & live))
        if owners:
            return SlideStatus(name, "running", owners, strips=strips, strips_done=done)
        if name in failures:
            return SlideStatus(
                name, "failed", strips=strips, strips_done=done, reason=failures[name]
            )
        state: State = "stopped" if self.begun else "waiting"
        return SlideStatus(name, state, strips=strips, strips_done=done)


def _infer_status(out: Path) -> CommandStatus:
    """Return the status of ``infer``: slides of incomplete runs, and all existing predictions."""
    run = RunRecord("")

    def look() -> dict[str, _Prediction]:
        nonlocal run
        for record in read_records(out):
            run = run.with_slides_of(record)
        # Complete stores that `tile` made have no journal.
        there = [
            name
            for name in names_in(out)
            if not name.startswith(".") and (out / name / JOURNAL).is_file()
        ]
        return {name: _look(out, name, run) for name in {*there, *run.slides, *run.failures}}

    found, processes = settled(out, look)
    live, own = {one.name for one in processes}, of_verb(processes, "infer")
    slides = tuple(found[name].status(name, live, run.failures) for name in sorted(found))
    tiles, finished = 0.0, 0.0
    for one in slides:
        if one.slide in run.slides:
            tiles += run.slides[one.slide][0]
            finished += run.slides[one.slide][0] * one.strips_done / max(1, one.strips)
    pace = _pace(out, slides, run, own)
    left = (tiles - finished) / pace if pace else None
    return CommandStatus("infer", slides, own, tiles, finished, left)


def _look(out: Path, name: str, run: RunRecord) -> _Prediction:
    """Read the state of one slide; if its folder is renamed meanwhile, the slide is complete."""
    _, strips = run.slides.get(name, (0, 0))
    path = out / PARTIAL / name / JOURNAL
    holders = owners_of(out / PARTIAL / name / SHARED)
    parts, done, begun = read_parts(path), read_units(path), path.is_file()
    if is_complete(out, name):
        return _Prediction(True, True, strips, strips, frozenset())
    left = ["begin"] if not begun else [] if len(done) < strips else ["finish"]
    for first, after in zip(parts, [*parts[1:], strips], strict=True):
        if any(str(index) not in done for index in range(first, after)):
            left.append(str(first))
    owners = frozenset(holders[part] for part in left if part in holders)
    return _Prediction(False, begun, strips, len(done), owners)


def _pace(
    out: Path, slides: Sequence[SlideStatus], run: RunRecord, processes: Sequence[ProcessStatus]
) -> float:
    """Return tiles per second since the first running process started; 0 if none are finished."""
    if not processes:
        return 0.0
    began = min(one.started for one in processes)
    tiles = 0.0
    for slide in slides:
        known, strips = run.slides.get(slide.slide, (0, 0))
        with suppress(OSError):
            if slide.state == "done":
                # The journal is last written after the last strip.
                if (out / slide.slide / JOURNAL).stat().st_mtime >= began:
                    tiles += known
                continue
            shared = out / PARTIAL / slide.slide / SHARED
            units = sum(len(read_file(shared / f"{one.name}.jsonl")) for one in processes)
            tiles += known * units / max(1, strips)
    return tiles / seconds_at_work(processes)
