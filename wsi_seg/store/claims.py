"""Owns claims: which process has which part of unfinished work, never two the same part.

A claim is a file that only one process can make (`create_new`), with the process's name in it. The
part of a process that has ended is taken over by making the next file, ``part.1`` after
``part.0``: again only one can, and nothing that others have is touched.
"""

import time
from contextlib import suppress
from pathlib import Path

from wsi_seg.files.atomic import create_new
from wsi_seg.files.shared import names_in, read_replaced
from wsi_seg.store.presence import Presence

# Looks at a folder whose listing is older than what is in it, and seconds between two of them.
_LOOKS, _WAIT = 5, 0.05


class Claims:
    """Parts of the work in one folder, as one process sees them.

    Parameters
    ----------
    folder
        Where claims are; who takes one makes it before.
    presence
        Of the process.

    Examples
    --------
    >>> claims = Claims(folder, presence)  # doctest: +SKIP
    >>> claims.take("part")  # doctest: +SKIP
    True
    """

    def __init__(self, folder: Path, presence: Presence) -> None:
        self._folder, self._owner, self._watcher = folder, presence.id, presence.watcher

    def take(self, part: str) -> bool:
        """Take a part, unless a live process has it.

        Returns
        -------
        bool
            Whether this process has it now, or had it before.

        Raises
        ------
        FileNotFoundError
            If the folder is gone: the work was finished, or removed.
        OSError
            If a claim cannot be written.
        """
        number, owner = -1, None  # mostly nobody has had it
        for _ in range(_LOOKS):
            if owner == self._owner:
                return True
            if owner is not None and self._lives(part, number, owner):
                return False
            if self._make(part, number + 1):
                is_last = _last_numbers(self._folder).get(part) == number + 1
                if is_last and (owner is None or self._read(part, number) == owner):
                    return True
                # What was taken over had been given back, and perhaps taken by another one since.
                self._path(part, number + 1).unlink(missing_ok=True)
            number, owner = self._last(part)
        return owner == self._owner  # else the folder is listed as it was before

    def has(self, part: str) -> bool:
        """Whether this process has a part; another one may have taken it for ended."""
        return self._last(part)[1] == self._owner

    def holder(self, part: str) -> str | None:
        """Live process that has a part, empty where it has not said its name; None for none."""
        number, owner = self._last(part)
        return owner if owner is not None and self._lives(part, number, owner) else None

    def is_left(self, part: str) -> bool:
        """Whether a process had a part and has ended."""
        number, owner = self._last(part)
        return owner is not None and not self._lives(part, number, owner)

    def held(self) -> dict[str, bool]:
        """Tell of each part that was taken, and not given back, whether its process lives."""
        found = {}
        for part in _last_numbers(self._folder):
            number, owner = self._last(part)
            if owner is not None:
                found[part] = self._lives(part, number, owner)
        return found

    def give_back(self, part: str) -> None:
        """Let others take a part, if this process has it."""
        number, owner = self._last(part)
        if owner == self._owner:
            for before in range(number + 1):  # its own last, so that nobody takes an older one over
                self._path(part, before).unlink(missing_ok=True)

    def _path(self, part: str, number: int) -> Path:
        return self._folder / f"{part}.{number}"

    def _last(self, part: str) -> tuple[int, str | None]:
        """Find number and owner of the last claim of a part; None where nobody has it.

        The folder is listed, as a process that is killed while it gives back leaves a gap before
        its last one. A listing may be older than what is read.
        """
        for look in range(_LOOKS):
            time.sleep(_WAIT if look else 0)
            number = _last_numbers(self._folder).get(part, -1)
            owner = self._read(part, number) if number >= 0 else None
            if number < 0 or owner is not None:
                break
        return number, owner

    def _read(self, part: str, number: int) -> str | None:
        """Owner of a claim, empty where it has not said its name; None if there is no claim."""
        try:
            return read_replaced(self._path(part, number)).decode()
        except FileNotFoundError:
            return None

    def _lives(self, part: str, number: int, owner: str) -> bool:
        """Whether an owner lives; one that has not said its name had time to, or was killed."""
        if owner:
            return self._watcher.lives(owner)
        return not self._watcher.is_silent(str(self._path(part, number)), 0)

    def _make(self, part: str, number: int) -> bool:
        return create_new(self._path(part, number), self._owner.encode())


def owners_of(folder: Path) -> dict[str, str]:
    """Name the last owner of each part that was ever taken in a folder, dead or alive."""
    found = {}
    for part, number in sorted(_last_numbers(folder).items()):
        with suppress(FileNotFoundError):
            found[part] = read_replaced(folder / f"{part}.{number}").decode()
    return found


def claims_in(folder: Path) -> dict[str, tuple[str, float]]:
    """Name the last owner of each part, as `owners_of` does, and when it was taken.

    That is in seconds since 1970, by the clock of the file's server.
    """
    found = {}
    for part, number in sorted(_last_numbers(folder).items()):
        path = folder / f"{part}.{number}"
        with suppress(FileNotFoundError):
            taken = path.stat().st_mtime_ns / 1e9
            found[part] = (read_replaced(path).decode(), taken)
    return found


def _last_numbers(folder: Path) -> dict[str, int]:
    """Highest number of the claims of each part; none where the folder is gone."""
    found: dict[str, int] = {}
    for name in names_in(folder):
        part, _, number = name.rpartition(".")
        if number.isdecimal():
            found[part] = max(int(number), found.get(part, -1))
    return found
