"""Owns the layout of help: commands in groups, unbroken words, examples on separate lines."""

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from typer.core import TyperGroup

__all__ = ["VerbGroup", "help_text"]


class Formatter(Protocol):
    """Methods of typer's formatter that write definition lists."""

    def section(self, name: str) -> AbstractContextManager[None]:
        """Write a heading, and indent what follows."""

    def write_dl(self, rows: Sequence[tuple[str, str]]) -> None:
        """Write terms and their wrapped definitions."""


class VerbGroup(TyperGroup):
    """Commands grouped by their ``rich_help_panel``, with one sentence each."""

    def format_commands(self, ctx: object, formatter: Formatter) -> None:
        """Write the list of commands."""
        del ctx
        width = max(map(len, self.commands))
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, verb in self.commands.items():
            heading = getattr(verb, "rich_help_panel", None) or "Verbs"
            summary = " ".join((verb.help or "").split("\n\n")[0].split())
            groups.setdefault(heading, []).append((name.ljust(width), summary))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def help_text(verb: Callable[..., None]) -> str:
    r"""Return the docstring of a command, with indented paragraphs marked as preformatted.

    Examples
    --------
    >>> def verb():
    ...     '''Do it.
    ...
    ...       wsi-seg verb
    ...     '''
    >>> help_text(verb)
    'Do it.\n\n\x08\n  wsi-seg verb'
    """
    return re.sub(r"\n\n(?= )", "\n\n\b\n", inspect.getdoc(verb) or "")
