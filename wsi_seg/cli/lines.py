"""Owns wrapping lines between words, which terminals would break anywhere."""

import re
import shutil
import textwrap
from typing import TextIO

# Colour codes, which have no width.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def wrapped(text: str, stream: TextIO) -> str:
    """Wrap lines to the width of a terminal; text for files and pipes is unchanged.

    Words are never broken, so that paths can be copied. Continuation lines are indented by two
    more spaces.

    Parameters
    ----------
    text
        One or more lines.
    stream
        Stream that the text is for.
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
