"""Turns: each slide is done once and the end once, however processes come, go and are killed."""

import contextlib
import errno
import itertools
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_seg.errors import BusyError, OutputError, SlideError
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.store.turns import taking_turns


class Killed(BaseException):
    pass


class Folder:
    """Slides of a folder, what was done of them, and how often the end was made."""

    def __init__(self, path, sizes):
        self.path, self.sizes = path, sizes
        self.done, self.ends = Counter[str](), []
        self.bad, self.stale = set(), set()

    def work(self, name):
        self.done[name] += 1
        if name in self.bad:
            raise SlideError(f"{name} cannot be read")
        return name.upper()

    def share(self, shard, *, stop=None, at_end=False):
        """Do a share as a process does; stop after so many slides, or in the middle of the end."""
        left = [stop]

        def work(name):
            if left[0] == 0:
                raise Killed
            left[0] = None if left[0] is None else left[0] - 1
            return self.work(name)

        with (
            contextlib.suppress(Killed),
            taking_turns(
                self.path,
                "export",
                shard,
                self.sizes,
                options={"a": Path("b")},
                is_current=lambda name, result: name not in self.stale,
                progress=Silent(),
            ) as turns,
        ):
            turns.run(work, str, title="export")
            with turns.end(lambda: bool(self.ends)) as last:
                if last and at_end:
                    raise Killed
                if last:
                    self.ends.append(turns.all(lambda name, result: str(result)))
            return turns.left


SIZES = st.dictionaries(st.text("abc", min_size=1, max_size=250), st.integers(0, 9), min_size=1)


@settings(max_examples=40)
@given(
    sizes=SIZES,
    count=st.integers(1, 4),
    events=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5), st.booleans()), max_size=6),
)
def test_any_kills_lose_one_slide_each_and_the_end_is_made_once(sizes, count, events):
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root), sizes)
        for number, stop, at_end in events:
            folder.share(Shard(min(number, count), count), stop=stop, at_end=at_end)
        before = len(folder.ends)
        for number in range(1, count + 1):
            folder.share(Shard(number, count))
        assert folder.done == Counter(list(sizes))  # it is killed before it works here
        assert len(folder.ends) == 1 or before == 1
        assert folder.ends[-1].results == {name: name.upper() for name in sizes}
        assert list(folder.ends[-1].results) == list(sizes)
        assert folder.share(Shard(1, count)) == []
        assert len(folder.ends) == 1


def test_of_processes_at_once_none_does_what_another_does(tmp_path):
    folder = Folder(tmp_path, {f"slide{number}": number for number in range(40)})
    barrier = threading.Barrier(6)

    def share(number):
        barrier.wait()
        folder.share(Shard(number % 3 + 1, 3))  # two have the same share

    threads = [threading.Thread(target=share, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(folder.done.values()) == {1}
    assert len(folder.done) == 40
    assert len(folder.ends) == 1


def test_claims_of_a_killed_process_are_gone_once_all_is_done(tmp_path):
    claims = ".wsi_seg/turns/*/claims/*"
    program = """
        import os, sys
        from pathlib import Path
        from wsi_seg.progress import Silent
        from wsi_seg.shard import Shard
        from wsi_seg.store.turns import taking_turns
        with taking_turns(
            Path(sys.argv[1]), "export", Shard(1, 2), {"a": 2, "b": 1}, options={"a": Path("b")},
            is_current=lambda name, result: True, progress=Silent(),
        ) as turns:
            turns.run(lambda name: os._exit(9), str, title="export")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), tmp_path], check=False)
    assert len(list(tmp_path.glob(claims))) == 2  # of the slide and of the share
    assert Folder(tmp_path, {"a": 2, "b": 1}).share(Shard(2, 2)) == []
    assert not list(tmp_path.glob(claims))


def test_a_failure_is_left_to_its_own_share_and_the_end_is_made_again(tmp_path):
    folder = Folder(tmp_path, {"a": 1, "b": 1})
    folder.bad = {"a"}
    for number in (1, 2, 2):
        folder.share(Shard(number, 2))
    assert folder.done == Counter({"a": 1, "b": 1})
    assert folder.ends[-1].failures == {"a": "a cannot be read"}
    folder.bad = set()
    folder.share(Shard(2, 2))
    folder.share(Shard(1, 2))
    assert folder.done == Counter({"a": 2, "b": 1})
    assert [list(end.results) for end in folder.ends] == [["b"], ["a", "b"]]


def test_what_does_not_hold_any_more_is_done_again(tmp_path):
    folder = Folder(tmp_path, {"a": 1, "b": 1})
    for number in (1, 2):
        folder.share(Shard(number, 2))
    folder.stale = {"b"}
    folder.share(Shard(2, 2))
    folder.stale = set()
    folder.share(Shard(1, 2))
    assert folder.done == Counter({"a": 1, "b": 2})
    assert len(folder.ends) == 2


def test_a_disk_that_fills_up_at_any_moment_costs_no_slide(tmp_path, monkeypatch):
    fsync, calls, full = os.fsync, itertools.count(), -1

    def fill(descriptor):
        if next(calls) == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill)
    Folder(tmp_path / "calm", {"a": 1, "b": 1, "c": 1}).share(Shard(1, 1))
    for full in range(next(calls)):
        folder, calls = Folder(tmp_path / str(full), {"a": 1, "b": 1, "c": 1}), itertools.count()
        folder.bad = {"b"}
        with contextlib.suppress(OutputError):
            folder.share(Shard(1, 1))
        calls = itertools.count(full + 1)  # there is room again
        folder.share(Shard(1, 1))
        assert folder.ends[-1].results == {"a": "A", "c": "C"}
        assert folder.ends[-1].failures == {"b": "b cannot be read"}
        assert folder.share(Shard(1, 1)) == []


def test_what_a_process_notes_after_it_lost_a_slide_counts_for_nothing(tmp_path):
    with taking_turns(
        tmp_path, "export", Shard(1, 1), {"a": 1.0, "b": 1.0}, options={},
        is_current=lambda *_: True, progress=Silent(),
    ) as turns:  # fmt: skip
        for name, fails in (("a", True), ("b", False)):
            with turns.turn(name) as turn:
                assert turn is not None
                (own,) = tmp_path.glob(".wsi_seg/turns/*/claims/*")
                own.with_name(f"{own.stem}.1").write_text("node7-1-0")
                with pytest.raises(BusyError, match="taken over"):
                    turn.require_mine()
                if fails:
                    raise SlideError("what was written is gone")
            own.unlink()
            own.with_name(f"{own.stem}.1").unlink()
        assert turns.left == ["a", "b"]


@pytest.mark.parametrize("other", ["options", "slides", "sizes"])
def test_a_process_with_other_options_or_slides_is_refused_while_one_is_at_work(tmp_path, other):
    script = """
        import sys
        from pathlib import Path
        from wsi_seg.progress import Silent
        from wsi_seg.shard import Shard
        from wsi_seg.store.turns import taking_turns
        with taking_turns(
            Path(sys.argv[1]), "export", Shard(1, 2), SIZES, options=OPTIONS,
            is_current=lambda name, result: True, progress=Silent(),
        ):
            print("held", flush=True)
            sys.stdin.read()
    """
    sizes = {"slides": {"b": 1}, "sizes": {"a": 2}}.get(other, {"a": 1})
    options = '{"a": 1}' if other == "options" else '{"a": Path("b")}'
    script = script.replace("SIZES", str(sizes)).replace("OPTIONS", options)
    folder = Folder(tmp_path, {"a": 1})
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=r"export --shard 1/2.* other options or other slides"):
            folder.share(Shard(2, 2))
        other.communicate("")
    assert folder.share(Shard(2, 2)) == []
    # What was kept for other options is gone.
    assert len(list((tmp_path / ".wsi_seg/turns").iterdir())) == 1
