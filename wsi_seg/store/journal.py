"""Owns the journal next to unfinished work: which units are done, and under which settings.

Whoever begins the work writes the settings. Processes that share it then each record what they
have done in a file of their own, because no network file system lets two append to one.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wsi_seg.errors import OutputError, StoreError
from wsi_seg.files.atomic import append_line, write_atomic
from wsi_seg.files.shared import read_replaced
from wsi_seg.store.names import SHARED

Settings = Mapping[str, object]

_SHARED = Path(SHARED).name


class Journal:
    """JSON lines: first the settings, then one line for each finished unit.

    A line that a kill cut short is ignored, so its unit is simply done again.

    Parameters
    ----------
    path
        The journal's file; made with its folder when absent.
    settings
        Plain JSON values that must be equal for the work to be continued.
    complete
        Whether the work is finished, so that nothing can be continued.
    owner
        Name of this process where others may work on the same; its units are then in a file of
        that name in a folder next to the journal.
    parts
        First unit of each part that a process may take, where this one begins the work; None
        where another one did.

    Attributes
    ----------
    parts
        First unit of each part, as whoever began the work has chosen.
    is_there
        Whether the file was there when it was last read; else the work was finished, or removed.

    Raises
    ------
    StoreError
        If the journal was started with other settings; the message names the differences.
    FileNotFoundError
        If another one began the work, and it is not there any more.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        complete: bool = False,
        owner: str | None = None,
        parts: Sequence[int] | None = (0,),
    ) -> None:
        self.path = path
        self._settings: Settings = json.loads(json.dumps(settings))
        self._units = path if owner is None else path.with_name(_SHARED) / f"{owner}.jsonl"
        header, self._done = _read(path)
        if header:
            self._require_same(header, complete=complete)
        elif parts is None:
            raise FileNotFoundError(path)
        else:
            header = {"settings": self._settings, "parts": list(parts)}
            write_atomic(path, json.dumps(header) + "\n")
        self.parts = _parts(header)
        self.is_there = True

    @property
    def settings(self) -> Settings:
        """Settings of the work."""
        return self._settings

    @property
    def done(self) -> Mapping[str, object]:
        """Results of the units that were finished when they were last read, keyed by unit."""
        return self._done

    def refresh(self) -> Mapping[str, object]:
        """Read again what is finished: other processes may have done more."""
        header, self._done = _read(self.path)
        self.is_there = bool(header)
        return self._done

    def record(self, unit: str, result: object = None) -> None:
        """Note on disk that a unit is finished, after its data are safely on disk."""
        self.record_all({unit: result})

    def record_all(self, results: Mapping[str, object]) -> None:
        """Note several finished units at once, keyed by unit; the disk is waited for once."""
        try:
            append_line(self._units, _lines(results).encode())
        except OSError as error:
            raise OutputError(f"cannot write {self._units}: {error.strerror or error}") from error
        self._done = {**self._done, **results}

    def _require_same(self, first: Mapping[str, object], *, complete: bool) -> None:
        stored = first.get("settings")
        if stored == self._settings:
            return
        before = stored if isinstance(stored, dict) else {}
        names = sorted(set(before) | set(self._settings))
        changes = [
            f"{name} was {before.get(name)!r} and is now {self._settings.get(name)!r}"
            for name in names
            if before.get(name) != self._settings.get(name)
        ]
        if complete:
            raise StoreError(
                f"{self.path.parents[1]} was made with other settings: {'; '.join(changes)}; "
                "--overwrite makes it again"
            )
        raise StoreError(
            f"{self.path.parents[1]} holds unfinished work with other settings: "
            f"{'; '.join(changes)}; repeat the first settings to continue, or start over with "
            "--overwrite"
        )


def read_settings(path: Path) -> Settings:
    """Read the settings that a journal was started with; empty if there is no journal."""
    return _settings(_parsed(path))


def read_parts(path: Path) -> tuple[int, ...]:
    """Read the first unit of each part of unfinished work."""
    lines = _parsed(path)
    return _parts(lines[0] if lines else {})


def merge_units(path: Path, settings: Settings, units: Mapping[str, object]) -> None:
    """Make one file of those of all processes, its units in order; for finished work.

    Raises
    ------
    OutputError
        If there is none any more: another process has finished the work.
    """
    if not path.is_file():
        raise OutputError(f"cannot write {path}: another process has finished this meanwhile")
    header = json.dumps({"settings": settings}) + "\n"
    write_atomic(path, header + _lines(dict(sorted(units.items()))), sync_name=False)


def read_journal(path: Path) -> tuple[Settings, dict[str, object]]:
    """Read the settings of a journal, and the units of all processes; see `read_units`."""
    header, units = _read(path)
    return _settings([header]), units


def read_units(path: Path) -> dict[str, object]:
    """Read results of the units that are finished, of all processes, keyed by unit."""
    return _read(path)[1]


def read_file(path: Path) -> dict[str, object]:
    """Read results of the units that are in one file, keyed by unit."""
    return _units(_parsed(path))


def _lines(results: Mapping[str, object]) -> str:
    """One line for each unit."""
    return "".join(
        json.dumps({"unit": unit, "result": result}) + "\n" for unit, result in results.items()
    )


def _read(path: Path) -> tuple[Mapping[str, object], dict[str, object]]:
    """First line of a journal, and the units of all processes; both empty where it does not parse.

    Without its settings nothing is known of the work that units were done of.
    """
    lines = _parsed(path)
    if not lines or "settings" not in lines[0]:
        return {}, {}
    units = _units(lines)
    with suppress(FileNotFoundError):
        for file in sorted(path.with_name(_SHARED).glob("*.jsonl")):
            units |= read_file(file)
    return lines[0], units


def _settings(lines: Sequence[Mapping[str, object]]) -> Settings:
    """Take the settings out of the first line; empty where it does not parse."""
    settings = lines[0].get("settings") if lines else None
    return settings if isinstance(settings, dict) else {}


def _parts(header: Mapping[str, object]) -> tuple[int, ...]:
    parts = header.get("parts")
    return tuple(map(int, parts)) if isinstance(parts, list) and parts else (0,)


def _units(lines: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {str(line["unit"]): line.get("result") for line in lines if "unit" in line}


def _parsed(path: Path) -> list[dict[str, object]]:
    """Lines of a file that parse; a cut or damaged line is left out."""
    try:
        content = read_replaced(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    lines = []
    for raw in content.split(b"\n"):
        with suppress(ValueError):
            line = json.loads(raw)
            if isinstance(line, dict):
                lines.append(line)
    return lines
