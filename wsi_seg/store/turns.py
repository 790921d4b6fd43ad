"""Owns dividing the slides of a command among processes: each is done once, and its end once.

Whose a slide is follows from the sizes of all, see `Shard.pick`. A claim keeps two processes from
doing the same one, and what became of it is kept next to the claim; so what a killed process has
left is done by others, or when the command is repeated.
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
from wsi_seg.errors import BusyError, OutputError, WsiSegError
from wsi_seg.progress import Progress
from wsi_seg.shard import Shard
from wsi_seg.store.claims import Claims
from wsi_seg.store.collection import Stores
from wsi_seg.store.lock import sharing
from wsi_seg.store.names import TURNS
from wsi_seg.store.presence import LEASE, Presence
from wsi_seg.store.turn_files import TurnFiles
from wsi_seg.store.writer import delete

# Seconds between two looks at what other processes do: the first time, and at most.
_WAIT, _LONGEST_WAIT = 0.5, 8.0

# Least seconds from one note of how much is done to the next.
_NOTES = 1.0

# What comes after the last slide is claimed as slides are, and so is a share; no slide has such
# names.
_END, _SHARE = "end", "share"


@dataclass(slots=True)
class Turn:
    """A slide while a process has it.

    Parameters
    ----------
    name
        Of the slide.
    is_mine
        Asks whether this process still has it.
    result
        What is kept of it, as JSON values.
    """

    name: str
    is_mine: Callable[[], bool]
    result: object = None

    def require_mine(self) -> None:
        """Raise a `BusyError` if another process has the slide, as it took this one for ended."""
        if not self.is_mine():
            raise BusyError(f"{self.name} was taken over by another process")


class Turns:
    """Slides of a command that this process is to do, and what all processes have done.

    Parameters
    ----------
    files
        Of the command, in the ``.wsi_seg`` of what it works on.
    presence
        Of this process.
    shard
        Which share is this process's.
    is_current
        Whether a result of an earlier run still holds, by slide; others are forgotten.
    progress
        Notes what is waited for.
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
        """Slides that have neither a result nor a failure."""
        known = self._files.outcomes()
        return [name for name in self._slides if name not in known]

    def __iter__(self) -> Iterator[list[str]]:
        """Slides to try now, then those that other processes have left, until nothing is.

        Whoever finds its share done already, as a repeated command does, or taken by another
        process, tries all that nobody has. Each slide is taken when its `turn` begins.
        """
        left = set(self.left)
        own = [name for name in self._mine if name in left]
        helps = not own or not self._take(self._share)
        if not helps:
            yield own
            if not left.intersection(self.left).intersection(own):
                self._claims.give_back(self._share)
        since, wait = time.monotonic(), _WAIT
        while others := [name for name in self.left if name not in self._tried]:
            tried = len(self._tried)
            if free := self._free(others, helps=helps):
                yield free
            if len(self._tried) > tried:
                since, wait = time.monotonic(), _WAIT
                continue
            # Those that were killed on other machines are known to be after a while only.
            if not helps or time.monotonic() - since >= LEASE * 1.5:
                return
            self._progress.note(f"waiting for other processes: {len(others)} slides are left")
            time.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT)

    @contextmanager
    def turn(self, name: str) -> Iterator["Turn | None"]:
        """Take a slide, and keep its result, or why it failed.

        Nothing is kept, nor raised, where another process has taken the slide over meanwhile: it
        took this one for ended, which was suspended.

        Yields
        ------
        Turn or None
            Takes the result, once the slide is done; None where the slide is not for this process:
            another one has it, or has done it.
        """
        part = self._files.parts[name]
        if self._files.has_outcome(name) or not self._take(part):
            yield None
            return
        if self._files.has_outcome(name):  # done since it was looked at
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
        with self._lock:  # slides may be done by several threads
            self._work += self._files.slides[name]
            if time.monotonic() >= self._next_note:  # small slides are done many a second
                self._files.note_work(self._presence.id, self._work)
                self._next_note = time.monotonic() + _NOTES
        self._claims.give_back(part)

    def run[R](
        self, work: Callable[[str], R], to_json: Callable[[R], object], *, title: str
    ) -> Batch[R]:
        """Work on the slides of this process; see `run_each`.

        ``to_json`` makes JSON values of a result, which other processes can read.
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
        """Results and failures of all processes, in the order of the slides."""
        batch: Batch[R] = Batch({}, {})
        for name in self._slides:
            if (found := self._files.read(name, "result")) is not None:
                batch.results[name] = of_json(name, found)
            elif (reason := self._files.read(name, "failure")) is not None:
                batch.failures[name] = str(reason)
        return batch

    @contextmanager
    def end(self, is_there: Callable[[], bool]) -> Iterator[bool]:
        """Tell one process, after all slides, that what comes last is for it to do.

        Parameters
        ----------
        is_there
            Whether the files are there that an earlier end of the same slides has made.

        Yields
        ------
        bool
            Whether this process is to do it, in the block. Others wait until it is done.
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

    def _take_end(self) -> bool:
        """Take the end, once nobody has it; False while slides are left."""
        wait = _WAIT
        while not self.left:
            if self._take(_END):
                return True
            self._progress.note("waiting for the process that writes what is of all slides")
            time.sleep(wait)
            wait = min(wait * 1.5, _LONGEST_WAIT)
        return False

    def _take(self, part: str) -> bool:
        try:
            self._files.claims.mkdir(parents=True, exist_ok=True)
            return self._claims.take(part)
        except OSError as error:
            folder = self._files.claims
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error

    def _free(self, left: list[str], *, helps: bool) -> list[str]:
        """Pick of these slides what nobody has, or only what others have left that have ended."""
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


def areas(stores: Stores) -> dict[str, float]:
    """Pixels of level 0 of each slide, which its work grows with; 0 where it cannot be opened."""
    found = dict.fromkeys(stores.names(), 0.0)
    for name in found:
        with suppress(WsiSegError):  # said where it is worked on
            found[name] = stores[name].pyramid.extent.area
    return found


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
) -> Iterator[Turns]:
    """Share the slides of a command with other processes that were given the same options.

    Parameters
    ----------
    folder
        Collection that the command works on.
    verb
        Its name, such as ``export``.
    shard, is_current, progress
        See `Turns`.
    sizes
        How much work each slide is, by name; the same in all processes.
    options
        JSON values that must be the same in all processes, too.

    Raises
    ------
    BusyError
        If another command is at work in the folder, or one with other options.
    OutputError
        If the folder cannot be written.

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
        root = folder / TURNS / f"{verb}-{key}"
        # Nobody is at work with other options, or this one would have been refused.
        for other in (folder / TURNS).glob(f"{verb}-*"):
            if other != root:
                delete(other)
        files = TurnFiles(root, sizes)
        files.begin()
        try:
            yield Turns(files, presence, shard, is_current, progress=progress)
        finally:
            files.leave(presence.id)
