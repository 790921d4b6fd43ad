"""Owns how a verb talks: text, the JSON line, errors as one sentence, exit codes, logging."""

import dataclasses
import json as jsonlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from wsi_seg.cli.bars import RichProgress
from wsi_seg.errors import BatchError, WsiSegError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["JsonFlag", "RichProgress", "Summary", "configure_logging", "run_verb"]

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count

JsonFlag = Annotated[
    bool,
    typer.Option("--json", help="Print one machine-readable JSON line last; text goes to stderr."),
]


class Summary:
    """What one run of a verb tells: text for people, values for the JSON line, progress.

    Text goes to stdout, or to stderr with ``--json``; progress always goes to stderr.

    Parameters
    ----------
    json
        Whether stdout is kept for the JSON line.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.progress = RichProgress()
        self.values: dict[str, object] = {}

    @property
    def _text(self) -> TextIO:
        return sys.stderr if self.json else sys.stdout

    def say(self, text: str) -> None:
        """Write one line, or several, for people."""
        self._text.write(text + "\n")
        self._text.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write rows under column heads: drawn on a terminal, tab-separated elsewhere."""
        _table(self._text, columns, rows)

    def add(self, report: "DataclassInstance") -> None:
        """Say a report, and put its fields into the JSON line.

        Parameters
        ----------
        report
            Dataclass whose ``str()`` is the text for people and whose fields are JSON values,
            paths, or dataclasses, lists and dicts of them.
        """
        self.values |= dataclasses.asdict(report)
        self.say(str(report))

    def record(self, key: str, value: object) -> None:
        """Put one value into the JSON line."""
        self.values[key] = value

    def next(self, command: str) -> None:
        """Say what to type next, and put it into the JSON line."""
        self.values["next"] = command
        self.say(f"Next: {command}")


def run_verb(body: Callable[[Summary], None], *, json: bool) -> None:
    """Run the body of a verb and end the process the way the command line promises.

    Parameters
    ----------
    body
        Does the work and fills the summary.
    json
        Whether the summary is printed as the last line of stdout.

    Raises
    ------
    typer.Exit
        With code 1 after an error of ours (one sentence on stderr; a table for a batch of
        slides), or 130 after Ctrl-C. Any other exception is a defect and passes through.
    """
    summary = Summary(json=json)
    status, code = "done", 0
    try:
        try:
            body(summary)
        except WsiSegError as error:
            summary.progress.close()
            _report(error, summary)
            status, code = "failed", FAILED
        except KeyboardInterrupt:
            summary.progress.close()
            sys.stderr.write("stopped: the same command takes up the work where it stopped\n")
            status, code = "stopped", INTERRUPTED
        finally:
            summary.progress.close()
        if json:
            sys.stdout.write(_json_line({"status": status, **summary.values}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()
        code = FAILED
    if code:
        raise typer.Exit(code)


def configure_logging(level: str) -> None:
    """Send log records to stderr; only the command line does this, never the library.

    Parameters
    ----------
    level
        ``debug``, ``info``, ``warning`` or ``error``: least level of wsi_seg's own records.
        Records of other libraries, and Python warnings, are shown from ``error`` on, or all of
        them with ``debug``.
    """
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    chosen = logging.getLevelNamesMapping()[level.upper()]
    if chosen > logging.DEBUG:
        handler.addFilter(_ours_or_grave)
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(min(chosen, logging.WARNING))
    logging.getLogger("wsi_seg").setLevel(chosen)


class _StderrHandler(logging.Handler):
    """Writes to the stderr of the moment, so that a progress bar can print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def _ours_or_grave(record: logging.LogRecord) -> bool:
    """Whether a record is worth a user's attention.

    tifffile logs as errors what our readers report as one sentence.
    """
    owner = record.name.split(".")[0]
    return owner == "wsi_seg" or (record.levelno >= logging.ERROR and owner != "tifffile")


def _report(error: WsiSegError, summary: Summary) -> None:
    summary.record("error", str(error))
    if not isinstance(error, BatchError):
        sys.stderr.write(f"error: {error}\n")
        return
    summary.record("failures", error.failures)
    total = len(error.failures) + error.done
    sys.stderr.write(
        f"error: {len(error.failures)} of {total} slides failed, {error.done} are done\n"
    )
    _table(sys.stderr, ("slide", "reason"), list(error.failures.items()))


def _json_line(values: Mapping[str, object]) -> str:
    return jsonlib.dumps(values, default=_as_json)


def _as_json(value: object) -> object:
    """Spell the values that JSON lacks."""
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"got a summary value of type {type(value).__name__}; expected JSON or a path")


def _table(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not stream.isatty():
        for row in (columns, *rows):
            stream.write("\t".join(row) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=stream).print(table)


def _leave_pipe() -> None:
    """Point stdout elsewhere, so that Python's flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
