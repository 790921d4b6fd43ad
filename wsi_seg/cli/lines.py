"""Owns breaking lines for people between words, where a terminal would break them anywhere."""

import re
import shutil
import textwrap
from typing import TextIO

# Codes of colours, which take no room.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def wrapped(text: str, stream: TextIO) -> str:
    """Break lines that are longer than the terminal is wide; those of a file or pipe stay.

    Words are never broken, so that paths can still be copied. What follows a break is indented by
    two more than its line.

    Parameters
    ----------
    text
        One line, or several.
    stream
        Where it will be written.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    if len(_COLOURS.sub("", line)) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
