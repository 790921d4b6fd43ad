import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.batch import require_none, run_each
from wsi_seg.errors import BatchError, StoreError


class Counted:
    def __init__(self):
        self.total, self.done, self.ended = 0, 0, False

    def start(self, title, total, unit):
        self.total = total

    def advance(self, amount):
        self.done += amount

    def note(self, text):
        raise AssertionError(text)

    def finish(self):
        self.ended = True


@given(st.dictionaries(st.text(min_size=1), st.booleans()), st.integers(1, 4))
def test_every_slide_is_done_or_named_with_its_reason(sound, threads):
    def work(name):
        if not sound[name]:
            raise StoreError(f"{name} is damaged")
        return name * 2

    progress = Counted()
    batch = run_each(tuple(sound), work, title="work", threads=threads, progress=progress)
    assert list(batch.results) == [name for name, well in sound.items() if well]
    assert batch.results == {name: name * 2 for name, well in sound.items() if well}
    assert batch.failures == {n: f"{n} is damaged" for n, well in sound.items() if not well}
    assert (progress.total, progress.done, progress.ended) == (len(sound), len(sound), True)


def test_a_defect_passes_through():
    with pytest.raises(ZeroDivisionError):
        run_each(("a",), lambda name: 1 / 0, title="work", progress=Counted())


def test_failures_are_raised_only_where_there_are_some():
    require_none({}, done=3)
    with pytest.raises(BatchError, match="1 of 4 slides failed, 3 done: a: cut short"):
        require_none({"a": "cut short"}, done=3)
