"""Owns the output of commands: text, the JSON line, error messages, exit codes, logging."""

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePath
from typing import Annotated, TextIO

import typer

from wsi_seg.batch import Report
from wsi_seg.cli.bars import RichProgress
from wsi_seg.cli.lines import wrapped
from wsi_seg.counts import counted, list_names
from wsi_seg.errors import BatchError, WsiSegError
from wsi_seg.extras import naming_extra
from wsi_seg.files.address import without_secrets

__all__ = ["JsonFlag", "RichProgress", "Terminal", "configure_logging", "run_verb", "words_given"]

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, the convention of shells

JsonFlag = Annotated[
    bool,
    typer.Option("--json", help="Print one line of JSON last, for programs; text goes to stderr."),
]


class Terminal:
    """Output of a command: text on stdout (on stderr with ``--json``), progress on stderr.

    Parameters
    ----------
    json_mode
        Whether stdout is reserved for the JSON line.
    """

    def __init__(self, *, json_mode: bool = False) -> None:
        self.json_mode = json_mode
        self.progress = RichProgress()

    @property
    def _text(self) -> TextIO:
        return sys.stderr if self.json_mode else sys.stdout

    @property
    def is_live(self) -> bool:
        """Whether text goes to a terminal."""
        return self._text.isatty()

    def say(self, text: str) -> None:
        """Write one or more lines, wrapped on a terminal."""
        self._write(wrapped(text, self._text))

    def _write(self, text: str) -> None:
        self._text.write(without_secrets(text) + "\n")
        self._text.flush()

    def invite(self, address: str) -> None:
        """Write the URL of a page with its token, the only secret that is shown."""
        self._text.write(f"Open {address}\n")
        self._text.flush()

    def show(self, report: Report) -> None:
        """Write the lines of a report."""
        self.say("\n".join(report.lines()))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table: drawn on a terminal, tab-separated elsewhere."""
        _table(self._text, columns, rows)

    def next_command(self, *words: str | Path) -> None:
        """Suggest the next command: one complete text, or words, which are quoted if necessary."""
        texts = [str(word) for word in words]
        # Not wrapped, so that it can be copied.
        self._write(f"Next: {texts[0] if len(texts) == 1 else shlex.join(texts)}")


def words_given(context: typer.Context, *, without: str) -> list[str]:
    """Return the words of the current command without one option, such as ``--dry-run``.

    Parameters
    ----------
    context
        Context of the command.
    without
        Name of the parameter to omit.
    """
    words = ["wsi-seg", str(context.info_name)]
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name == without or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            option = [parameter.opts[-1]] if parameter.param_type_name == "option" else []
            words += [*option, str(one)]
    return words


def run_verb(
    body: Callable[[Terminal], Mapping[str, object]],
    json_mode: bool,
    *,
    writes: Path | None = None,
    makes: bool = False,
    anywhere: bool = False,
    overwrites: bool = False,
) -> None:
    """Run the body of a command, and exit with the code that the command line documents.

    Parameters
    ----------
    body
        Does the work, writes to the given terminal, and returns the summary: JSON values and
        paths. The ``status`` is ``done`` unless the summary contains another one.
    json_mode
        Whether to print the summary as the last line of stdout.
    writes
        Folder to lock against other commands that write.
    makes
        Whether the command creates this folder if necessary.
    anywhere
        Whether the folder may be in an object store.
    overwrites
        Whether ``--overwrite`` was given, which would discard finished work if repeated.

    Raises
    ------
    typer.Exit
        With code 1 after a `WsiSegError` (a message on stderr, or a table for a batch of slides)
        or a `PermissionError`, or 130 after Ctrl-C. Any other exception is a bug and propagates.
    """
    terminal = Terminal(json_mode=json_mode)
    code = 0
    try:
        try:
            verb = verb_of(body)
            with _locked(writes, makes, anywhere, verb), naming_extra(f"wsi-seg {verb}"):
                summary = {"status": "done", **body(terminal)}
            code = 0 if summary["status"] == "done" else FAILED
        except (WsiSegError, PermissionError) as error:
            terminal.progress.close()
            known = error if isinstance(error, WsiSegError) else _denied(error)
            summary, code = _report(known), FAILED
        except KeyboardInterrupt:
            terminal.progress.close()
            same = "the same command without --overwrite" if overwrites else "the same command"
            message = f"stopped: run {same} to continue"
            sys.stderr.write(wrapped(message, sys.stderr) + "\n")
            summary, code = {"status": "stopped"}, INTERRUPTED
        finally:
            terminal.progress.close()
        if json_mode:
            sys.stdout.write(without_secrets(json.dumps(summary, default=_as_json)) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_pipe()
        code = FAILED
    if code:
        raise typer.Exit(code)


def verb_of(function: Callable[..., object]) -> str:
    """Return the name of a command, after which its file is named."""
    path = function.__module__.removeprefix("wsi_seg.cli.")
    return path.rstrip("_").replace(".", " ").replace("_", "-")


def _locked(
    folder: Path | None, makes: bool, anywhere: bool, verb: str
) -> AbstractContextManager[None]:
    """Lock the folder, if there is one."""
    if folder is None:
        return nullcontext()
    from wsi_seg.files.object_path import place
    from wsi_seg.store.lock import locked

    folder = place(folder) if anywhere else folder
    return locked(folder, f"wsi-seg {verb}", make=makes)


def configure_logging(level: str) -> None:
    """Send log records to stderr; only the command line configures logging, never the library.

    Parameters
    ----------
    level
        Lowest level of records of wsi_seg: ``debug``, ``info``, ``warning`` or ``error``. Records
        of other libraries, and Python warnings, are shown from ``error`` on, or all of them with
        ``debug``.
    """
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    chosen = logging.getLevelNamesMapping()[level.upper()]
    if chosen > logging.DEBUG:
        handler.addFilter(_is_relevant)
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(min(chosen, logging.WARNING))
    logging.getLogger("wsi_seg").setLevel(chosen)


class _StderrHandler(logging.Handler):
    """Writes to the current ``sys.stderr``, which rich replaces while it shows bars."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(wrapped(without_secrets(self.format(record)), sys.stderr) + "\n")


def _is_relevant(record: logging.LogRecord) -> bool:
    """Return whether to show a record: our own ones, and errors of other libraries.

    Errors that tifffile logs are reported by our readers, too.
    """
    owner = record.name.split(".")[0]
    return owner == "wsi_seg" or (record.levelno >= logging.ERROR and owner != "tifffile")


def _report(error: WsiSegError) -> dict[str, object]:
    """Write an error to stderr, and return the summary."""
    summary: dict[str, object] = {"status": "failed", "error": str(error)}
    if not isinstance(error, BatchError):
        sys.stderr.write(wrapped(f"error: {without_secrets(str(error))}", sys.stderr) + "\n")
        return summary
    total = len(error.failures) + error.done
    sys.stderr.write(
        f"error: {len(error.failures)} of {counted(total, 'slide')} failed, {error.done} done\n"
    )
    # One row per slide for programs, and one per reason for people.
    rows = _by_reason(error.failures) if sys.stderr.isatty() else list(error.failures.items())
    _table(sys.stderr, ("slide", "reason"), rows)
    return summary | {"failures": error.failures}


def _by_reason(failures: Mapping[str, str]) -> list[tuple[str, str]]:
    """Join the slides whose reasons differ by their names only; the first one's reason is shown."""
    alike: dict[str, list[str]] = {}
    for name, reason in failures.items():
        alike.setdefault(reason.replace(name, ""), []).append(name)
    return [(list_names(names), failures[names[0]]) for names in alike.values()]


def _denied(error: PermissionError) -> WsiSegError:
    """Return the message of a file or folder that this user may not read or write."""
    return WsiSegError(
        f"cannot access {error.filename}: {error.strerror}; get permission to read and write it"
    )


def _as_json(value: object) -> object:
    """Serialize paths, which JSON lacks."""
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"got a summary value of type {type(value).__name__}; expected JSON or a path")


def _table(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    rows = [[without_secrets(cell) for cell in row] for row in rows]
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
    """Redirect stdout to the null device, so that Python's flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
