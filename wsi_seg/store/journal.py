"""Owns the journal next to unfinished work: which units are done, and under which settings."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from wsi_seg.errors import OutputError, StoreError

Settings = Mapping[str, object]


class Journal:
    """Append-only JSON lines: first the settings, then one line for each finished unit.

    A line that a kill cut short is ignored, so its unit is simply done again.

    Parameters
    ----------
    path
        The journal's file; made with its folder when absent.
    settings
        Plain JSON values that must be equal for the work to be continued.
    complete
        Whether the work is finished, so that nothing can be continued.

    Raises
    ------
    StoreError
        If the journal was started with other settings; the message names the differences.
    """

    def __init__(self, path: Path, settings: Settings, *, complete: bool = False) -> None:
        self.path = path
        self._settings = json.loads(json.dumps(settings))
        self._done: dict[str, object] = {}
        lines = _whole_lines(path)
        if lines:
            self._require_same(lines[0], complete=complete)
            self._done = {str(line["unit"]): line.get("result") for line in lines[1:]}
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"settings": self._settings}) + "\n", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror or error}") from error

    @property
    def done(self) -> Mapping[str, object]:
        """Results of the finished units, keyed by unit."""
        return self._done

    def record(self, unit: str, result: object = None) -> None:
        """Note on disk that a unit is finished, after its data are safely on disk."""
        self.record_all({unit: result})

    def record_all(self, results: Mapping[str, object]) -> None:
        """Note several finished units at once, keyed by unit; the disk is waited for once."""
        lines = [json.dumps({"unit": unit, "result": result}) for unit, result in results.items()]
        text = "\n".join(lines) + "\n"
        try:
            with self.path.open("r+b") as file:
                # A cut line must not swallow the next one.
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    text = text if file.read(1) == b"\n" else "\n" + text
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._done |= results

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
                f"{self.path.parent} was made with other settings: {'; '.join(changes)}; "
                "--overwrite makes it again"
            )
        raise StoreError(
            f"{self.path.parent} holds unfinished work with other settings: "
            f"{'; '.join(changes)}; repeat the first settings to continue, or start over with "
            "--overwrite"
        )


def read_settings(path: Path) -> Settings:
    """Read the settings that a journal was started with; empty if there is no journal."""
    lines = _whole_lines(path)
    settings = lines[0]["settings"] if lines else None
    return settings if isinstance(settings, dict) else {}


def _whole_lines(path: Path) -> list[dict[str, object]]:
    """Lines of the journal that parse; a cut or damaged line is left out."""
    if not path.is_file():
        return []
    lines = []
    for raw in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines if lines and "settings" in lines[0] else []
