"""Lines for people end at the terminal's width; those for programs stay as they are."""

import io
import sys

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.cli.console import Terminal, run_verb
from wsi_seg.cli.lines import wrapped
from wsi_seg.errors import SlideError


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_width(columns: int, text: str, stream: io.StringIO) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        return wrapped(text, stream)


@given(
    st.integers(20, 200),
    st.lists(st.text("aä/-`", min_size=1, max_size=60), min_size=1, max_size=40),
    st.integers(0, 4),
)
def test_no_line_is_longer_than_the_terminal_and_every_word_is_there(columns, words, indent):
    text = " " * indent + " ".join(words)
    broken = at_width(columns, text, _Tty())
    assert broken.split() == words
    for line in broken.split("\n"):
        assert len(line) <= columns or len(line.split()) == 1  # a word is never broken
    assert at_width(columns, text, io.StringIO()) == text


def test_lines_that_fit_are_as_they_were():
    text = "slide   tiles\n  a    12"
    assert at_width(80, text, _Tty()) == text


def test_colours_take_no_room():
    text = "\x1b[33m!\x1b[0m" + " word" * 15
    assert at_width(80, text, _Tty()) == text


def test_an_error_is_broken_and_a_command_to_copy_is_not(monkeypatch):
    def body(terminal: Terminal) -> dict[str, object]:
        terminal.say("word " * 30)
        terminal.next_command("wsi-seg", "infer", "x" * 100)
        raise SlideError("slide a: got no mpp; expected one; " + "say it with --mpp " * 8)

    out, err = _Tty(), _Tty()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(typer.Exit):
        run_verb(body, False)
    *said, command = out.getvalue().splitlines()
    assert command == f"Next: wsi-seg infer {'x' * 100}"
    assert len(said) == 2
    assert len(err.getvalue().splitlines()) > 1
    assert max(map(len, [*said, *err.getvalue().splitlines()])) <= 80
