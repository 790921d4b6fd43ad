import io
import re
import sys
import time

import pytest

from wsi_seg.cli.bars import RichProgress, clock, counted, left, number, rated


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock_s(monkeypatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (41.23, "41.2"), (5678.4, "5678"), (99_999, "99999"), (1.234e6, "1.23M")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_words():
    assert counted(412, 5678) == "412/5678"
    assert counted(3.5, 0) == "3.5"
    assert rated(41.23, "tiles") == "41.2 tiles/s"
    assert rated(0.0123, "epochs") == "0.0123 epochs/s"
    assert rated(None, "MB") == "- MB/s"
    assert clock(65) == "1:05"
    assert clock(7265) == "2:01:05"
    assert left(None) == "-:-- left"


def test_elsewhere_than_on_a_terminal_lines_are_plain_and_few(capsys, clock_s):
    progress = RichProgress()
    progress.start("Infer a", 1000, "tiles")
    for _ in range(1000):
        clock_s[0] += 0.03
        progress.advance(1)
    progress.finish()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 11
    assert lines[0] == ("Infer a: 10 %, 100/1000 tiles, 33.3 tiles/s, 0:03 elapsed, 0:27 left")
    assert lines[-1] == "Infer a: 1000 tiles in 0:30, 33.3 tiles/s"
    assert not re.search(r"[\x00-\x1f]", "".join(lines))


def test_a_short_step_says_nothing(capsys, clock_s):
    progress = RichProgress()
    progress.start("Tile a", 3, "MB")
    clock_s[0] += 0.5
    progress.advance(3)
    progress.finish()
    assert capsys.readouterr().err == ""


def test_a_slow_step_is_heard_every_ten_seconds(capsys, clock_s):
    progress = RichProgress()
    progress.start("Train", 100000, "patches")
    for _ in range(40):
        clock_s[0] += 1
        progress.advance(1)
    assert len(capsys.readouterr().err.splitlines()) == 4


def test_nested_steps_advance_the_innermost(capsys, clock_s):
    progress = RichProgress()
    progress.start("Outer", 2, "slides")
    progress.start("Inner", 10, "tiles")
    clock_s[0] += 20
    progress.advance(1)
    progress.finish()
    clock_s[0] += 20
    progress.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Inner", "Outer"]
    assert "1/2 slides" in lines[1]


def test_the_bar_fits_80_columns(monkeypatch):
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    progress = RichProgress()
    progress.start("Infer a_slide_with_a_long_name", 56789, "tiles")
    progress.advance(12345)
    progress.finish()
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line for line in re.split(r"[\r\n]", drawn) if line.strip()]
    assert lines
    assert all(len(line) <= 80 for line in lines)
    assert "12345/56789" in lines[-1]
    assert "tiles/s" in lines[-1]
    assert "left" in lines[-1]
