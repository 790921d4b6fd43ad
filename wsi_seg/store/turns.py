"""Owns distributing the slides of a command among processes, and its final step to one of them.

`Shard.pick` assigns slides to shards by size. A claim keeps two processes from working on one
slide; results and failures are stored next to the claims. So other processes, or the repeated
command, complete the work of a killed process.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.batch import Batch, run_each
from wsi_seg.counts import counted
from wsi_seg.errors import BusyError, OutputError, WsiSegError
from wsi_seg.files.object_folder import for_each
from wsi_seg.files.shared import make_folder
from wsi_seg.progress import Progress
from wsi_seg.shard import Shard
from wsi_seg.store.claims import Claims
from wsi_seg.store.collection import Stores
from wsi_seg.store.lock import sharing
from wsi_seg.store.names import TURNS
from wsi_seg.store.presence import LEASE, Presence
from wsi_seg.store.slide_list import create_collection
from wsi_seg.store.turn_files import TurnFiles
from wsi_seg.store.writer import delete

# Seconds between polls of other processes: initial and maximum.
_WAIT, _LONGEST_WAIT = 0.5, 8.0

# Minimum seconds between updates of the amount of work done.
_NOTES = 1.0

# The final step and shards are claimed like slides, whose claims are named by hashes.
_END, _SHARE = "end", "share"


@dataclass(slots=True)
class Turn:
    """A slide that this process has claimed.

    Parameters
    ----------
    name
        Name of the slide.
    is_mine
        Returns whether this process still holds the claim.
    result
        Result to store, as JSON values.
    """

    name: str
    is_mine: Callable[[], bool]
    result: object = None

    def require_mine(self) -> None:
        """Raise a `BusyError` if another process has taken over the slide."""
        if not self.is_mine():
            raise BusyError(
                f"slide {self.name!r} was taken over by another process, because this one did not "
                "respond for a minute and seemed to have ended; the other one completes it"
            )


class Turns:
    """Slides for this process to work on, and the results of all processes.

    Parameters
    ----------
    files
        Files of the command, in the ``.wsi_seg`` folder of its collection.
    presence
        Presence of this process.
    shard
        Shard of the slides that this process works on.
    is_current
        Called with a slide and its result of an earlier run; returns whether it is still valid.
        Invalid results are removed.
    progress
        Shows what this process waits for.
    """

    def __init__(
        self,
        files: TurnFiles,
        presence: Presence,
        shard: Shard,
        is_current: Callable[[str, object], bool],
        *,
        progress: Progress,
    ) -> None:
        self._files, self._presence, self._progress = files, presence, progress
        self._claims = Claims(files.claims, presence)
        self._slides, self._tried = list(files.slides), set[str]()
        self._work, self._next_note, self._lock = 0.0, 0.0, threading.Lock()
        self._mine, self._share = shard.pick(files.slides), f"{_SHARE}-{shard.number}-{shard.count}"
        mine = set(self._mine)
        for name, outcome in files.outcomes().items():
            failed = outcome == "failure"
            if name in mine if failed else not is_current(name, files.read(name, outcome)):
                files.forget(name, outcome)

    @property
    def left(self) -> list[str]:
        """Slides without a result or failure."""
        known = self._files.outcomes()
        return [name for name in self._slides if name not in known]

    def __iter__(self) -> Iterator[list[str]]:
        """Yield slides to try now, then those abandoned by other processes, until none are left.

        A process whose shard is complete, as in a repeated command, or claimed by another process,
        tries all unclaimed slides. A slide is claimed when its `turn` begins.
        """
        left = set(self.left)
        own = [name for name in self._mine if name in left]
        helps = not own or not self._take(self._share)
        if not helps:
            yield own
            if not left.intersection(self.left).intersection(own):
                self._claims.give_back(self._share)
        since, waits = time.monotonic(), _waits()
        while others := [name for name in self.left if name not in self._tried]:
            tried = len(self._tried)
            if free := self._free(others, helps=helps):
                yield free
            if len(self._tried) > tried:
                since, waits = time.monotonic(), _waits()
                continue
            # A process killed on another machine is only noticed after its lease.
            if not helps or time.monotonic() - since >= LEASE * 1.5:
                return
            self._progress.note(
                f"waiting for other processes: {counted(len(others), 'slide')} left"
            )
            time.sleep(next(waits))

    @contextmanager
    def turn(self, name: str) -> Iterator["Turn | None"]:
        """Claim a slide, and store its result or failure.

        If this process was suspended and another one took over the slide, nothing is stored or
        raised.

        Yields
        ------
        Turn or None
            Object to set the result on; None if another process has claimed or completed the slide.
        """
        part = self._files.parts[name]
        if self._files.has_outcome(name) or not self._take(part):
            yield None
            return
        if self._files.has_outcome(name):  # completed in the meantime
            self._claims.give_back(part)
            yield None
            return
        self._tried.add(name)
        turn = Turn(name, lambda: self._claims.has(part))
        try:
            yield turn
        except WsiSegError as error:
            if not turn.is_mine():
                return
            self._files.write(name, "failure", str(error))
            self._claims.give_back(part)
            raise
        if not turn.is_mine():
            return
        self._files.write(name, "result", turn.result)
        with self._lock:  # threads may complete slides concurrently
            self._work += self._files.slides[name]
            if time.monotonic() >= self._next_note:  # small slides take milliseconds
                self._files.note_work(self._presence.id, self._work)
                self._next_note = time.monotonic() + _NOTES
        self._claims.give_back(part)

    def run[R](
        self, work: Callable[[str], R], to_json: Callable[[R], object], *, title: str
    ) -> Batch[R]:
        """Process the slides of this process; see `run_each`.

        ``to_json`` converts a result to JSON values, which other processes can read.
        """
        batch: Batch[R] = Batch({}, {})

        def attempt(name: str) -> R | None:
            found = None
            with self.turn(name) as turn:
                if turn is not None:
                    found = work(name)
                    turn.result = to_json(found)
            return found

        for names in self:
            tried = run_each(names, attempt, title=title, progress=self._progress)
            done = {name: one for name, one in tried.results.items() if one is not None}
            batch.results.update(done)
            batch.failures.update(tried.failures)
        return batch

    def all[R](self, of_json: Callable[[str, object], R]) -> Batch[R]:
        """Return results and failures of all processes, in the order of the slides."""
        batch: Batch[R] = Batch({}, {})
        for name in self._slides:
            if (found := self._files.read(name, "result")) is not None:
                batch.results[name] = of_json(name, found)
            elif (reason := self._files.read(name, "failure")) is not None:
                batch.failures[name] = str(reason)
        return batch

    @contextmanager
    def end(self, is_there: Callable[[], bool]) -> Iterator[bool]:
        """Select one process for the final step, after all slides are complete.

        Parameters
        ----------
        is_there
            Returns whether the output files of an earlier final step exist.

        Yields
        ------
        bool
            Whether this process should do the final step in the block; others wait for it.
        """
        if not self._take_end():
            yield False
            return
        before = self._files.state(self._slides)
        is_made = self._files.read(_END, "result") == before and is_there()
        yield not is_made
        if not is_made:
            self._files.write(_END, "result", before)
        self._claims.give_back(_END)

    def tidy(self) -> None:
        """Remove the claims of processes that exited, which matter only while slides are left."""
        if not self.left:
            self._claims.sweep()

    def _take_end(self) -> bool:
        """Claim the final step, waiting for its holder; return False if slides are left."""
        waits = _waits()
        while not self.left:
            if self._take(_END):
                return True
            self._progress.note("waiting for the process that writes the files of all slides")
            time.sleep(next(waits))
        return False

    def _take(self, part: str) -> bool:
        try:
            make_folder(self._files.claims)
            return self._claims.take(part)
        except OSError as error:
            folder = self._files.claims
            raise OutputError.of(folder, error) from error

    def _free(self, left: list[str], *, helps: bool) -> list[str]:
        """Return the unclaimed slides; without ``helps`` only those of processes that exited."""
        held = self._claims.held()
        ended = {part for part, lives in held.items() if not lives}
        parts = self._files.parts
        if helps:
            return [name for name in left if parts[name] not in held or parts[name] in ended]
        shards = (part.split("-") for part in ended if part.startswith(_SHARE))
        of_ended = {
            name
            for _, number, count in shards
            for name in Shard(int(number), int(count)).pick(self._files.slides)
        }
        return [
            name
            for name in left
            if parts[name] in ended or (name in of_ended and parts[name] not in held)
        ]


def _waits() -> Iterator[float]:
    """Yield the seconds to wait between polls, which increase up to a maximum."""
    wait = _WAIT
    while True:
        yield wait
        wait = min(wait * 1.5, _LONGEST_WAIT)


def areas(stores: Stores) -> dict[str, float]:
    """Return the level-0 pixels of each slide as its work; 0 if it cannot be opened."""

    def area(name: str) -> float:
        with suppress(WsiSegError):  # reported when the slide is processed
            return stores[name].pyramid.extent.area
        return 0.0

    names = stores.names()
    return dict(zip(names, for_each(stores.path, area, names), strict=True))


@contextmanager
def taking_turns(
    folder: Path,
    verb: str,
    shard: Shard,
    sizes: Mapping[str, float],
    *,
    options: Mapping[str, object],
    is_current: Callable[[str, object], bool],
    progress: Progress,
    creates: bool = False,
) -> Iterator[Turns]:
    """Share the slides of a command with other processes with the same options.

    Parameters
    ----------
    folder
        Collection to process.
    verb
        Name of the command, such as ``export``.
    shard, is_current, progress
        See `Turns`.
    sizes
        Amount of work of each slide, by name; must be the same in all processes.
    options
        JSON values, which must be the same in all processes.
    creates
        Whether to create the collection if it is missing.

    Raises
    ------
    BusyError
        If another command, or the same one with other options, is running in the folder.
    OutputError
        If the folder cannot be written, or ``creates`` and it exists and is not a collection.

    Examples
    --------
    >>> with taking_turns(  # doctest: +SKIP
    ...     folder, "export", Shard(1, 2), {"a": 3.0, "b": 1.0}, options={},
    ...     is_current=lambda name, result: True, progress=Silent(),
    ... ) as turns:
    ...     batch = turns.run(work, str, str, title="export")
    """
    same = json.dumps([options, sizes], sort_keys=True, default=str)
    key = hashlib.sha256(same.encode()).hexdigest()[:16]
    with sharing(folder, f"wsi-seg {verb}", shard=str(shard), options=key) as presence:
        if creates:
            create_collection(folder)
        root = folder / TURNS / f"{verb}-{key}"
        # No process with other options is running, or `sharing` would have raised an error.
        for other in (folder / TURNS).glob(f"{verb}-*"):
            if other != root:
                delete(other)
        files = TurnFiles(root, sizes)
        files.begin()
        try:
            turns = Turns(files, presence, shard, is_current, progress=progress)
            yield turns
            turns.tidy()
        finally:
            files.leave(presence.id)
