"""Owns the journal of unfinished work: its settings, and the units that are finished.

The process that starts the work writes the settings. Processes that share the work each record
their units in a separate file, because concurrent appends are unsafe on network file systems.
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

    A line truncated by a kill is ignored, so its unit is repeated.

    Parameters
    ----------
    path
        File of the journal; created with its folder if missing.
    settings
        JSON values, which must be equal to continue the work.
    complete
        Whether the work is finished, for the error message.
    owner
        Name of this process if several share the work; its units are then recorded in a file of
        that name in a folder next to the journal.
    parts
        First unit of each part that can be claimed, if this process may start the work; None to
        require existing work.

    Attributes
    ----------
    parts
        First unit of each part, as recorded when the work was started.
    is_there
        Whether the file existed when it was last read; otherwise the work is finished or removed.

    Raises
    ------
    StoreError
        If the journal was started with other settings; the message lists the differences.
    FileNotFoundError
        If ``parts`` is None and the journal does not exist.
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
        """Results of the finished units by unit, as of the last read."""
        return self._done

    def refresh(self) -> Mapping[str, object]:
        """Read the results of all processes again, and return them by unit."""
        header, self._done = _read(self.path)
        self.is_there = bool(header)
        return self._done

    def record(self, unit: str, result: object = None) -> None:
        """Record a finished unit on disk; its data must be synced before."""
        self.record_all({unit: result})

    def record_all(self, results: Mapping[str, object]) -> None:
        """Record several finished units with one fsync; ``results`` are keyed by unit."""
        try:
            append_line(self._units, _lines(results).encode())
        except OSError as error:
            raise OutputError.of(self._units, error) from error
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
    """Return the settings of a journal; empty if it does not exist."""
    return _settings(_parsed(path))


def read_parts(path: Path) -> tuple[int, ...]:
    """Return the first unit of each part of unfinished work."""
    lines = _parsed(path)
    return _parts(lines[0] if lines else {})


def merge_units(path: Path, settings: Settings, units: Mapping[str, object]) -> None:
    """Rewrite the journal of finished work with the sorted units of all processes.

    Raises
    ------
    OutputError
        If the journal does not exist, because another process has finished the work.
    """
    if not path.is_file():
        raise OutputError(f"cannot write {path}: another process has finished this meanwhile")
    header = json.dumps({"settings": settings}) + "\n"
    write_atomic(path, header + _lines(dict(sorted(units.items()))), sync_name=False)


def read_journal(path: Path) -> tuple[Settings, dict[str, object]]:
    """Return the settings of a journal, and the results of all processes by unit."""
    header, units = _read(path)
    return _settings([header]), units


def read_units(path: Path) -> dict[str, object]:
    """Return the results of all processes by unit."""
    return _read(path)[1]


def read_file(path: Path) -> dict[str, object]:
    """Return the results in one file by unit."""
    return _units(_parsed(path))


def _lines(results: Mapping[str, object]) -> str:
    """Return one JSON line for each unit."""
    return "".join(
        json.dumps({"unit": unit, "result": result}) + "\n" for unit, result in results.items()
    )


def _read(path: Path) -> tuple[Mapping[str, object], dict[str, object]]:
    """Return the first line of a journal, and the results of all processes by unit.

    Both are empty if the first line is damaged, because units are useless without their settings.
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
    """Return the settings in the first line; empty if it is damaged."""
    settings = lines[0].get("settings") if lines else None
    return settings if isinstance(settings, dict) else {}


def _parts(header: Mapping[str, object]) -> tuple[int, ...]:
    parts = header.get("parts")
    return tuple(map(int, parts)) if isinstance(parts, list) and parts else (0,)


def _units(lines: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {str(line["unit"]): line.get("result") for line in lines if "unit" in line}


def _parsed(path: Path) -> list[dict[str, object]]:
    """Return the JSON objects in a file; truncated or damaged lines are skipped."""
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
