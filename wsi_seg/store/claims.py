"""Owns claims, by which each part of unfinished work is assigned to at most one process.

A claim is a file that only one process can create (`create_new`); it contains the name of the
process. A process takes over the part of one that exited by creating the next file, ``part.1``
after ``part.0``: again only one succeeds, and no existing claim is modified.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from wsi_seg.files.atomic import create_new
from wsi_seg.files.shared import names_in, read_replaced
from wsi_seg.store.presence import Presence

# Attempts if the listing of a folder is out of date, and seconds between them.
_LOOKS, _WAIT = 5, 0.05


class Claims:
    """Claims in one folder, on behalf of one process.

    Parameters
    ----------
    folder
        Folder of the claims; must exist before `take`.
    presence
        Presence of the process.

    Examples
    --------
    >>> claims = Claims(folder, presence)  # doctest: +SKIP
    >>> claims.take("part")  # doctest: +SKIP
    True
    """

    def __init__(self, folder: Path, presence: Presence) -> None:
        self._folder, self._owner, self._watcher = folder, presence.id, presence.watcher

    def take(self, part: str) -> bool:
        """Claim a part, unless a live process has claimed it.

        Returns
        -------
        bool
            Whether this process holds the claim, new or existing.

        Raises
        ------
        FileNotFoundError
            If the folder does not exist: the work was completed or removed.
        OSError
            If a claim cannot be written.
        """
        number, owner = -1, None  # usually there is no claim yet
        for _ in range(_LOOKS):
            if owner == self._owner:
                return True
            if owner is not None and self._lives(part, number, owner):
                return False
            if self._make(part, number + 1):
                is_last = _last_numbers(self._folder).get(part) == number + 1
                if is_last and (owner is None or self._read(part, number) == owner):
                    return True
                # The old claim was released, and another process may have claimed the part.
                self._path(part, number + 1).unlink(missing_ok=True)
            number, owner = self._last(part)
        return owner == self._owner  # otherwise the listing is still out of date

    def has(self, part: str) -> bool:
        """Return whether this process still holds a part; it may have been taken over."""
        return self._last(part)[1] == self._owner

    def holder(self, part: str) -> str | None:
        """Return the live process that holds a part, or None; "" if its claim has no name yet."""
        number, owner = self._last(part)
        return owner if owner is not None and self._lives(part, number, owner) else None

    def is_abandoned(self, part: str) -> bool:
        """Return whether the process that claimed a part has exited."""
        number, owner = self._last(part)
        return owner is not None and not self._lives(part, number, owner)

    def held(self) -> dict[str, bool]:
        """Return all claimed parts, each with whether its process is alive."""
        found = {}
        for part in _last_numbers(self._folder):
            number, owner = self._last(part)
            if owner is not None:
                found[part] = self._lives(part, number, owner)
        return found

    def give_back(self, part: str) -> None:
        """Release a part, if this process holds it."""
        number, owner = self._last(part)
        if owner == self._owner:
            for before in range(number + 1):  # own claim last, so that no older one is taken over
                self._path(part, before).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the claims of processes that exited."""
        for part, is_alive in self.held().items():
            if not is_alive and self.take(part):
                self.give_back(part)

    def _path(self, part: str, number: int) -> Path:
        return self._folder / f"{part}.{number}"

    def _last(self, part: str) -> tuple[int, str | None]:
        """Return number and owner of the last claim of a part; the owner is None if unclaimed.

        The folder is listed, because a process killed while releasing a claim leaves a gap in the
        numbers. The listing may be out of date.
        """
        for look in range(_LOOKS):
            time.sleep(_WAIT if look else 0)
            number = _last_numbers(self._folder).get(part, -1)
            owner = self._read(part, number) if number >= 0 else None
            if number < 0 or owner is not None:
                break
        return number, owner

    def _read(self, part: str, number: int) -> str | None:
        """Return the owner of a claim, "" if it has no name yet, None if there is no claim."""
        try:
            return read_replaced(self._path(part, number)).decode()
        except FileNotFoundError:
            return None

    def _lives(self, part: str, number: int, owner: str) -> bool:
        """Return whether an owner is alive; without a name, until its claim expires."""
        if owner:
            return self._watcher.lives(owner)
        return not self._watcher.is_silent(str(self._path(part, number)), 0)

    def _make(self, part: str, number: int) -> bool:
        return create_new(self._path(part, number), self._owner.encode())


def owners_of(folder: Path) -> dict[str, str]:
    """Return the last owner of each claimed part in a folder, whether alive or not."""
    return {part: owner for part, _, owner in _named(folder)}


def claims_in(folder: Path) -> dict[str, tuple[str, float]]:
    """Return the last owner of each part, as `owners_of` does, and the time of the claim.

    The time is in seconds since 1970, by the clock of the file server.
    """
    found = {}
    for part, path, owner in _named(folder):
        with suppress(FileNotFoundError):
            found[part] = (owner, path.stat().st_mtime_ns / 1e9)
    return found


def _named(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield the last claim of each part that has a name, with its path and owner.

    A claim without a name is being made at this moment, by a process that has not begun the part.
    """
    for part, number in sorted(_last_numbers(folder).items()):
        for taken in range(number, -1, -1):
            path = folder / f"{part}.{taken}"
            try:
                owner = read_replaced(path).decode()
            except FileNotFoundError:  # given back
                break
            if owner:
                yield part, path, owner
                break


def _last_numbers(folder: Path) -> dict[str, int]:
    """Return the highest claim number of each part; empty if the folder does not exist."""
    found: dict[str, int] = {}
    for name in names_in(folder):
        part, _, number = name.rpartition(".")
        if number.isdecimal():
            found[part] = max(int(number), found.get(part, -1))
    return found
