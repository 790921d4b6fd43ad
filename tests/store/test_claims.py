"""Claims: one owner for each part, whoever ends when, and whatever locks the file system has."""

import contextlib
import errno
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_seg.files import half_written
from wsi_seg.store import presence as presence_module
from wsi_seg.store.claims import Claims, claims_in, owners_of
from wsi_seg.store.presence import Note, Presence


class Owner:
    """A process with claims; several of them live in this one."""

    def __init__(self, folder):
        self._stack = contextlib.ExitStack()
        self.presence = self._stack.enter_context(
            Presence(folder / ".wsi_seg/run", Note.own("test"))
        )
        self.claims = Claims(folder, self.presence)

    def end(self):
        self._stack.close()


@pytest.fixture
def owners(tmp_path):
    with contextlib.ExitStack() as stack:

        def make():
            owner = Owner(tmp_path)
            stack.callback(owner.end)
            return owner

        yield make


def test_a_part_has_one_owner_until_that_has_ended(owners, tmp_path):
    one, two = owners(), owners()
    assert one.claims.take("a")
    assert one.claims.take("a")
    assert not two.claims.take("a")
    assert two.claims.take("b")
    assert two.claims.holder("a") == one.presence.id
    one.end()
    assert two.claims.holder("a") is None
    assert two.claims.take("a")
    two.claims.give_back("a")
    assert not list(tmp_path.glob("a.*"))


def test_a_claim_without_a_name_is_not_shown_yet(owners, tmp_path):
    one = owners()
    assert one.claims.take("a")
    assert one.claims.take("b")
    (tmp_path / "a.1").touch()  # another process creates it, then writes its name
    (tmp_path / "c.0").touch()
    assert owners_of(tmp_path) == dict.fromkeys("ab", one.presence.id)
    assert {part: owner for part, (owner, _) in claims_in(tmp_path).items()} == owners_of(tmp_path)


def test_a_process_killed_while_it_gives_back_leaves_its_part_to_one(owners, tmp_path):
    first, killed = owners(), owners()
    assert first.claims.take("a")
    first.end()
    assert killed.claims.take("a")
    killed.end()
    (tmp_path / "a.0").unlink()  # and then a.1 would have gone
    one, two = owners(), owners()
    assert one.claims.is_abandoned("a")
    assert one.claims.take("a")
    assert not two.claims.take("a")
    assert one.claims.take("a")
    one.claims.give_back("a")
    assert not list(tmp_path.glob("a.*"))


def test_of_many_that_take_what_another_has_left_one_gets_it(owners):
    for _ in range(20):
        gone, rivals = owners(), [owners() for _ in range(6)]
        assert gone.claims.take("a")
        gone.end()
        barrier, found = threading.Barrier(len(rivals)), list[bool]()

        def race(rival, barrier=barrier, found=found):
            barrier.wait()
            found.append(rival.claims.take("a"))

        threads = [threading.Thread(target=race, args=(rival,)) for rival in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [False] * 5 + [True]
        for rival in rivals:
            rival.claims.give_back("a")
            rival.end()


@settings(max_examples=40)
@given(moves=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "back", "end"]))))
def test_whatever_happens_two_live_owners_never_have_one_part(tmp_path_factory, moves):
    folder = tmp_path_factory.mktemp("claims")
    owners = [Owner(folder) for _ in range(4)]
    has = None
    for number, move in moves:
        owner = owners[number]
        if move == "take":
            assert owner.claims.take("a") == (has in (None, number))
            has = number if has is None else has
        elif move == "back":
            owner.claims.give_back("a")
            has = None if has == number else has
        else:
            owner.end()
            owners[number] = Owner(folder)
            has = None if has == number else has
    for owner in owners:
        owner.end()


def test_an_owner_is_taken_for_gone_only_where_its_claim_did_not_change_hands(owners, monkeypatch):
    """Between the look at a claim and the takeover, its owner's work was done by another one."""
    gone, slow, other = owners(), owners(), owners()
    assert gone.claims.take("a")
    gone.end()
    real = Claims._make

    def late(claims, part, number):
        if claims is slow.claims and number and not seen:
            seen.append(number)
            assert other.claims.take("a")
            other.claims.give_back("a")
            assert other.claims.take("a")
        return real(claims, part, number)

    seen: list[int] = []
    monkeypatch.setattr(Claims, "_make", late)
    assert not slow.claims.take("a")
    assert seen == [1]
    assert other.claims.holder("a") == other.presence.id


@pytest.mark.parametrize("clock", [1e9, 4e9], ids=["years behind", "years ahead"])
def test_without_locks_of_the_file_system_signs_tell(owners, monkeypatch, clock):
    monkeypatch.setattr(presence_module, "_kernel", lambda: "")  # as on another machine
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one, two = owners(), owners()
    assert one.claims.take("a")
    assert not two.claims.take("a")
    now[0] = 59.0
    assert not two.claims.take("a")
    now[0] = 200.0  # a sign, whatever the clock of the other machine says
    os.utime(one.presence.folder / f"{one.presence.id}.alive", (clock, clock))
    assert not two.claims.take("a")
    now[0] = 261.0
    assert two.claims.take("a")


def test_a_process_whose_file_is_taken_for_one_of_a_kill_makes_it_again(owners, monkeypatch):
    lock, swept = presence_module._lock, list[str]()

    def sweep(descriptor, path):
        if not swept:
            swept.extend(half_written.partials_in(path.parent).values())
            path.unlink()
            raise FileNotFoundError(path)
        return lock(descriptor, path)

    monkeypatch.setattr(presence_module, "_lock", sweep)
    owner = owners()
    assert owner.claims.take("a")
    assert swept == [half_written.partial_mark(owner.presence.note.host, os.getpid())]
    assert owner.presence.watcher.lives(owner.presence.id)


def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize(
    "flock", [refuse, lambda *_: None], ids=["no locks", "locks without effect"]
)
def test_a_live_process_keeps_its_part_whatever_locks_do(owners, monkeypatch, flock):
    monkeypatch.setattr("fcntl.flock", flock)
    one, two = owners(), owners()
    assert one.claims.take("a")
    assert not two.claims.take("a")
    assert one.presence.watcher.lives(two.presence.id)


def test_a_claim_without_a_name_counts_until_its_maker_had_time_to_write_it(
    owners, tmp_path, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / "a.0").touch()
    one = owners()
    assert not one.claims.take("a")
    assert one.claims.holder("a") == ""
    now[0] = 61.0
    assert one.claims.take("a")


def test_where_the_folder_is_gone_nothing_is_claimed(owners, tmp_path):
    one = owners()
    claims = Claims(tmp_path / "gone", one.presence)
    with pytest.raises(FileNotFoundError):
        claims.take("a")
    assert claims.holder("a") is None
