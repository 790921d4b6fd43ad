"""Owns dividing the slides of a command among processes: each is done once, and its end once.

Whose a slide is follows from the sizes of all, see `Shard.pick`. A claim keeps two processes from
doing the same one, and what became of it is kept next to the claim; so what a killed process has
left is done by others, or when the command is repeated.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_seg.atomic import write_atomic
from wsi_seg.batch import Batch, run_each
from wsi_seg.errors import WsiSegError
from wsi_seg.progress import Progress
from wsi_seg.shard import Shard
from wsi_seg.shared_files import read_replaced
from wsi_seg.store.claims import Claims
from wsi_seg.store.collection import Stores
from wsi_seg.store.lock import sharing
from wsi_seg.store.names import TURNS
from wsi_seg.store.presence import LEASE, Presence
from wsi_seg.store.writer import delete

# Seconds between two looks at what other processes do.
_WAIT = 0.5

# Files of a slide, and its claim, in a folder of their own.
_RESULT, _FAILURE, _CLAIM = "result.json", "failure.json", "claim"

# What comes after the last slide is claimed as slides are; none of them has such a name.
_END = ".end"


class Turns:
    """Slides of a command that this process is to do, and what all processes have done.

    Parameters
    ----------
    root
        Folder of the command, in the ``.wsi_seg`` of what it works on.
    presence
        Of this process.
    shard
        Which share is this process's.
    sizes
        How much work each slide is, by name; the same in all processes.
    is_current
        Whether a result of an earlier run still holds, by slide; others are forgotten.
    at_once
        Slides that this process does at the same time.
    progress
        Told what is waited for.
    """

    def __init__(
        self,
        root: Path,
        presence: Presence,
        shard: Shard,
        sizes: Mapping[str, float],
        is_current: Callable[[str, object], bool],
        *,
        at_once: int,
        progress: Progress,
    ) -> None:
        self._root, self._presence = root, presence
        self._progress, self._at_once = progress, at_once
        self._slides, self._tried = list(sizes), set[str]()
        self._mine = shard.pick(sizes)
        for name in self._slides:
            if (found := self._read(name, _RESULT)) is not None and not is_current(name, found):
                self._file(name, _RESULT).unlink(missing_ok=True)
        for name in self._mine:
            self._file(name, _FAILURE).unlink(missing_ok=True)

    @property
    def left(self) -> list[str]:
        """Slides that have neither a result nor a failure."""
        return [
            name
            for name in self._slides
            if not self._file(name, _RESULT).exists() and not self._file(name, _FAILURE).exists()
        ]

    def __iter__(self) -> Iterator[list[str]]:
        """Slides to do now, then those that other processes have left, until nothing is.

        Whoever finds its share done already, as a repeated command does, takes all that nobody has.
        """
        left = set(self.left)
        taken = [name for name in self._mine if name in left and self._take(name)]
        helps, since = not taken, time.monotonic()
        while True:
            if taken:
                self._tried.update(taken)
                yield taken
                since = time.monotonic()
            others = [name for name in self.left if name not in self._tried]
            taken = self._take_some(others, helps=helps)
            if taken:
                continue
            # Those that were killed on other machines are known to be after a while only.
            if not others or not helps or time.monotonic() - since >= LEASE * 1.5:
                return
            self._progress.note(f"waiting for other processes: {len(others)} slides are left")
            time.sleep(_WAIT)

    def run[R](
        self, work: Callable[[str], R], to_json: Callable[[R], object], *, title: str
    ) -> Batch[R]:
        """Work on the slides of this process; see `run_each`.

        ``to_json`` makes JSON values of a result, which other processes can read.
        """
        batch: Batch[R] = Batch({}, {})

        def noted(name: str) -> R:
            with self.noting(name) as done:
                found = work(name)
                done(to_json(found))
            return found

        for names in self:
            one = run_each(names, noted, title=title, progress=self._progress)
            batch.results.update(one.results)
            batch.failures.update(one.failures)
        return batch

    @contextmanager
    def noting(self, name: str) -> Iterator[Callable[[object], None]]:
        """Keep the result of a slide, which is given to what is yielded, or why it failed."""
        found: list[object] = []
        try:
            yield found.append
        except WsiSegError as error:
            self._write(name, _FAILURE, str(error))
            raise
        self._write(name, _RESULT, found[0])

    def all[R](self, of_json: Callable[[str, object], R]) -> Batch[R]:
        """Results and failures of all processes, in the order of the slides."""
        found = {name: self._read(name, _RESULT) for name in self._slides}
        failed = {name: self._read(name, _FAILURE) for name in self._slides}
        return Batch(
            {name: of_json(name, result) for name, result in found.items() if result is not None},
            {name: str(reason) for name, reason in failed.items() if reason is not None},
        )

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
        if not self._may_end(is_there):
            yield False
            return
        before = self._state()
        yield True
        self._write(_END, _RESULT, before)
        self._claims(_END).give_back(_CLAIM)

    def _may_end(self, is_there: Callable[[], bool]) -> bool:
        while not self.left:
            if self._read(_END, _RESULT) == self._state() and is_there():
                return False
            if self._take(_END):
                if self._read(_END, _RESULT) != self._state() or not is_there():
                    return True
                self._claims(_END).give_back(_CLAIM)
                return False
            self._progress.note("waiting for the process that writes what is of all slides")
            time.sleep(_WAIT)
        return False

    def _state(self) -> str:
        """Name what was done of all slides: another one where one was done again."""
        known = hashlib.sha256()
        for name in sorted(self._slides):
            for file in (_RESULT, _FAILURE):
                with suppress(FileNotFoundError):
                    stat = self._file(name, file).stat()
                    known.update(f"{name} {file} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return known.hexdigest()

    def _take(self, name: str) -> bool:
        self._file(name, _CLAIM).parent.mkdir(parents=True, exist_ok=True)
        return self._claims(name).take(_CLAIM)

    def _take_some(self, left: list[str], *, helps: bool) -> list[str]:
        """Take of these slides what nobody has, or only what others have left."""
        taken: list[str] = []
        for name in left:
            if (helps or self._claims(name).is_left(_CLAIM)) and self._take(name):
                if self._file(name, _RESULT).exists():
                    continue  # done since it was looked at
                taken.append(name)
                if len(taken) == self._at_once:
                    break
        return taken

    def _claims(self, name: str) -> Claims:
        return Claims(self._file(name, _CLAIM).parent, self._presence)

    def _file(self, name: str, file: str) -> Path:
        # A slide's name may be as long as a file system takes.
        return self._root / hashlib.sha256(name.encode()).hexdigest()[:32] / file

    def _read(self, name: str, file: str) -> object:
        with suppress(FileNotFoundError):
            return json.loads(read_replaced(self._file(name, file)))
        return None

    def _write(self, name: str, file: str, content: object) -> None:
        write_atomic(self._file(name, file), json.dumps(content))


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
    at_once: int = 1,
    progress: Progress,
) -> Iterator[Turns]:
    """Share the slides of a command with other processes that were given the same options.

    Parameters
    ----------
    folder
        Collection that the command works on.
    verb
        Its name, such as ``export``.
    shard, sizes, is_current, at_once, progress
        See `Turns`.
    options
        JSON values that must be the same in all processes.

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
    key = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]
    with sharing(folder, f"wsi-seg {verb}", shard=str(shard), options=key) as presence:
        root = folder / TURNS / f"{verb}-{key}"
        # Nobody is at work with other options, or this one would have been refused.
        for other in (folder / TURNS).glob(f"{verb}-*"):
            if other != root:
                delete(other)
        yield Turns(root, presence, shard, sizes, is_current, at_once=at_once, progress=progress)
