"""Shards of a run on one output: any of them, in any order, killed or not, give the same bytes."""

import json
import os
import re
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cards import make_card
from tests.makers.memory import PixelPredictor
from wsi_seg.errors import BusyError, ConfigError, StoreError, StoreNotFoundError
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.inference.run_plan import plan_inference
from wsi_seg.inference.share import divide
from wsi_seg.inference.status import read_status
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.store import open_collection
from wsi_seg.store.lock import locked
from wsi_seg.store.names import PARTIAL, RUN, SHARED
from wsi_seg.store.presence import Note
from wsi_seg.testing.stores import digests, make_store

MODEL = Model((Member(make_card("a", "b"), "toy"),))


def of_place(tiles):
    """A model that errs towards the borders of tiles, so that blending has something to do."""
    ramp = np.linspace(0, 1, tiles.shape[1], dtype=np.float32)
    red = tiles[..., 0].astype(np.float32) / 510 + ramp[:, None] * ramp / 2
    return np.stack([red, tiles[..., 1].astype(np.float32) / 255], axis=1)


def load(member, options, compiled):
    return PixelPredictor(of_place, channels=2)


class Killed(BaseException):
    pass


class Stop(Silent):
    """Stops a run after so many batches."""

    def __init__(self, left):
        self.left = left

    def advance(self, amount):
        self.left -= 1
        if self.left < 0:
            raise Killed


def run(
    stores, out, shard=None, *, stop=None, save="both", overlap=0.5, stage=None, overwrite=False
):
    """Predict a share, and return whether it was stopped."""
    options = InferOptions(
        overlap=overlap, batch=4, strip_px=512, precision="fp32", device="cpu", save=save,
        shard=shard, stage=stage,
    )  # fmt: skip
    progress = Silent() if stop is None else Stop(stop)
    executor = SerialExecutor(MODEL, options, load=load, progress=progress)
    try:
        return infer_with(
            MODEL, stores, out, options, executor=executor, overwrite=overwrite, progress=Silent()
        )
    except Killed:
        return None


def run_share(slides, out, number):
    """Predict one of two shares, as a process of its own may."""
    run(list(open_collection(slides)), out, Shard(number, 2))


@settings(max_examples=10)
@given(
    heights=st.lists(st.integers(40, 2900), min_size=1, max_size=3),
    count=st.integers(1, 5),
    save=st.sampled_from(["both", "labels", "probabilities"]),
    events=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), max_size=6),
    whole=st.booleans(),
)
def test_any_shards_and_any_kills_give_the_bytes_of_one_process(
    heights, count, save, events, whole
):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, height in enumerate(heights):
            make_store(root / "s.zarr", f"slide{number}", height, 70)
        stores = list(open_collection(root / "s.zarr"))
        run(stores, root / "calm", save=save)
        for number, stop in events:
            run(stores, root / "cut", Shard(min(number, count), count), stop=stop, save=save)
            status = read_status(root / "cut").of("infer")
            assert status.count("running") == 0
            assert len(status.slides) == len(heights)
        if whole:
            run(stores, root / "cut", save=save)
        else:
            for number in range(1, count + 1):
                run(stores, root / "cut", Shard(number, count), save=save)
        assert digests(root / "cut") == digests(root / "calm")
        assert not (root / "cut" / ".wsi_seg/partial").exists()
        assert read_status(root / "cut").of("infer").is_complete


@pytest.fixture
def stores(tmp_path):
    make_store(tmp_path / "s.zarr", "tall", 3300, 70)
    make_store(tmp_path / "s.zarr", "two", 64, 90)
    make_store(tmp_path / "s.zarr", "three", 130, 90)
    return list(open_collection(tmp_path / "s.zarr"))


def test_a_large_slide_is_shared_by_strips_and_the_last_shard_finishes_it(stores, tmp_path):
    out = tmp_path / "p"
    tiles = 0
    for number in (2, 1, 3):
        report = run(stores, out, Shard(number, 3))
        tiles += report.tiles
        assert report.tiles > 0
        assert (out / "tall").exists() == (number == 3)
    whole = run(stores, tmp_path / "calm")
    assert whole.tiles <= tiles < 1.3 * whole.tiles  # a row of tiles is predicted on both sides
    assert digests(out) == digests(tmp_path / "calm")
    assert run(stores, out, Shard(1, 3)).tiles == 0


def test_a_repeated_shard_finishes_what_a_killed_one_has_left(stores, tmp_path):
    out = tmp_path / "p"
    assert run(stores, out, Shard(1, 2), stop=18) is None
    status = read_status(out).of("infer")
    assert {one.slide: one.state for one in status.slides}["tall"] == "stopped"
    assert 0 < status.work_done < status.work
    run(stores, out, Shard(2, 2))
    assert read_status(out).of("infer").is_complete
    run(stores, tmp_path / "calm")
    assert digests(out) == digests(tmp_path / "calm")


def test_what_a_kill_at_the_end_of_a_slide_leaves_is_removed(stores, tmp_path):
    out = tmp_path / "p"
    run(stores, out)
    expected = digests(out)
    # One was killed between naming a group and removing claims, one as it was about to begin.
    for claims in (out / "two" / SHARED, out / PARTIAL / "three" / SHARED):
        claims.mkdir(parents=True)
        (claims / "finish.0").write_text("node7-1-0")
    assert digests(out) != expected
    run(stores, out, Shard(1, 1))
    assert digests(out) == expected


def test_what_a_kill_leaves_half_written_is_in_no_digests(stores, tmp_path):
    out = tmp_path / "p"
    assert run(stores, out, Shard(1, 1), stop=18) is None
    for group in ("tall", "tall/labels/prediction", "two/labels/prediction"):
        for file in ("0/c/0/.0.0a1b2c3d.partial", "zarr.json.0a1b.tmp"):
            path = out / PARTIAL / group / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"cut")
    run(stores, out, Shard(1, 1))
    run(stores, tmp_path / "calm")
    assert digests(out) == digests(tmp_path / "calm")


def test_a_shard_leaves_the_share_of_one_that_has_not_begun(stores, tmp_path):
    report = run(stores, tmp_path / "p", Shard(1, 2))
    assert report.elsewhere > 0
    assert "left to other processes" in "\n".join(report.lines())
    assert read_status(tmp_path / "p").of("infer").count("waiting") + len(report.slides) <= 3
    assert run(stores, tmp_path / "p", Shard(1, 2)).elsewhere == 0  # repeated, it does the rest


@given(
    heights=st.lists(st.integers(10, 2500), min_size=1, max_size=4),
    count=st.integers(1, 9),
)
@settings(max_examples=15)
def test_shares_have_every_strip_once_and_equal_work(heights, count):
    with tempfile.TemporaryDirectory() as folder:
        for number, height in enumerate(heights):
            make_store(Path(folder) / "s.zarr", f"slide{number}", height, 50)
        stores = list(open_collection(Path(folder) / "s.zarr"))
        options = InferOptions(batch=4, strip_px=512, precision="fp32", device="cpu")
        slides = plan_inference(stores, MODEL, options).slides
    shares = [divide(slides, Shard(number, count)).share for number in range(1, count + 1)]
    every = [(slide, strip) for share in shares for slide in share for strip in share[slide]]
    wanted = [(plan.slide, strip) for (plan,) in slides for strip in range(len(plan.strips))]
    assert sorted(every) == sorted(wanted)


def test_what_cannot_be_shared_is_refused(stores, tmp_path):
    options = InferOptions(shard=Shard(1, 2), device="cpu")
    with pytest.raises(ConfigError, match="--shard 1/2 with --overwrite"):
        infer_with(MODEL, stores, tmp_path / "p", options, overwrite=True, progress=Silent())
    with pytest.raises(StoreNotFoundError, match=r"no collection at .*none; expected one that"):
        read_status(tmp_path / "none")


def test_a_shard_with_another_overlap_is_refused_while_one_is_at_work_and_leaves_its_slides(
    stores, tmp_path
):
    out, there = tmp_path / "p", Note.own("wsi-seg infer", shard="1/2", options="another run")
    assert run(stores, out, Shard(1, 2), stop=18) is None
    with pytest.raises(StoreError, match=r"tall holds unfinished work with other .*: overlap was"):
        run([one for one in stores if one.name == "tall"], out, Shard(1, 1), overlap=0.25)
    file = out / RUN / "node7-1-0.alive"
    file.write_text(json.dumps(asdict(replace(there, host="node7", kernel="of node7"))))
    with pytest.raises(BusyError, match="other options or other slides"):
        run(stores, out, Shard(2, 2))
    file.unlink()
    run(stores, out, Shard(1, 1))
    run(stores, tmp_path / "calm")
    assert digests(out) == digests(tmp_path / "calm")


def test_a_shard_with_other_options_than_an_ended_one_is_refused(stores, tmp_path):
    out = tmp_path / "p"
    first = run(stores, out, Shard(1, 2))
    assert first.slides or first.tiles
    with pytest.raises(StoreError, match=r"overlap was 0\.5 and is now 0\.25"):
        run(stores, out, Shard(2, 2), overlap=0.25)
    run(stores, out, Shard(2, 2))
    run(stores, tmp_path / "calm")
    assert digests(out) == digests(tmp_path / "calm")


def test_another_verb_is_kept_off_while_a_shard_is_at_work(stores, tmp_path):
    out, refused = tmp_path / "p", list[str]()

    class Try(Silent):
        def advance(self, amount):
            if not refused:
                with pytest.raises(BusyError, match=r"wsi-seg infer --shard 1/2"), locked(out, "x"):
                    pass
                refused.extend(read_status(out).lines())

    options = InferOptions(batch=4, precision="fp32", device="cpu", shard=Shard(1, 2))
    executor = SerialExecutor(MODEL, options, load=load, progress=Try())
    infer_with(MODEL, stores, out, options, executor=executor, progress=Silent())
    assert any("running by" in line for line in refused)
    assert any(re.search(r": last heartbeat \d+ s ago$", line) for line in refused)


def test_a_process_of_another_machine_is_shown_until_its_lease_ends(stores, tmp_path):
    out = tmp_path / "p"
    assert run(stores, out, Shard(1, 2), stop=18) is None
    there = replace(Note.own("wsi-seg infer", shard="2/2"), host="node7", kernel="of node7")
    file = out / RUN / "node7-1-0.alive"
    file.write_text(json.dumps(asdict(there)))
    os.utime(file, (time.time() - 12, time.time() - 12))
    (shown,) = read_status(out).of("infer").processes
    assert (shown.note, shown.certain) == (there, False)
    assert re.search(
        r"on node7, .*last heartbeat \d+ s ago, counts as ended 60 s after that", str(shown)
    )
    os.utime(file, (time.time() - 61, time.time() - 61))
    assert read_status(out).of("infer").processes == ()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "4"},
         Shard(3, 4)),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4", "RANK": "2"}, Shard(1, 4)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2",
          "SLURM_ARRAY_TASK_COUNT": "4"}, Shard(4, 4)),
        ({"JOB_COMPLETION_INDEX": "15", "JOB_COMPLETIONS": "16"}, Shard(16, 16)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Shard(2, 2)),
    ],
)  # fmt: skip
def test_schedulers_tell_the_share(environment, expected):
    assert Shard.parse("auto", environment) == expected


def test_a_count_can_be_given_where_the_scheduler_tells_none():
    assert Shard.parse("auto/16", {"JOB_COMPLETION_INDEX": "0"}) == Shard(1, 16)


@pytest.mark.parametrize(
    "text",
    [
        "0/4",
        "5/4",
        "3",
        "a/b",
        "-1/4",
        "auto",
        "auto/x",
        "1/0",
        "1/" + "9" * 400,
        "1/" + "9" * 5000,
    ],
)
def test_other_shares_are_refused(text):
    with pytest.raises(ConfigError, match="shard"):
        Shard.parse(text, {})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"STEP": "0"}, "TASK_STEP='0'"),
        ({"STEP": ""}, "TASK_STEP=''"),
        ({"MIN": "first"}, "TASK_MIN='first'"),
        ({"COUNT": ""}, "TASK_COUNT=''"),
        ({"COUNT": "9" * 400}, "at most|share 3 of 9"),
    ],
)
def test_a_variable_that_is_no_number_is_named(changed, said):
    task = {"ID": "3", "MIN": "1", "STEP": "1", "COUNT": "4"} | changed
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in task.items()}
    with pytest.raises(ConfigError, match=said):
        Shard.parse("auto", environment).cut([1.0, 2.0])


def test_an_array_with_gaps_is_refused_in_the_words_of_its_scheduler():
    # What Slurm sets in task 7 of --array=3,7.
    task = {"ID": "7", "MIN": "3", "STEP": "1", "COUNT": "2"}
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in task.items()}
    with pytest.raises(ConfigError, match="TASK_ID=7 and SLURM_ARRAY_TASK_COUNT=2, which"):
        Shard.parse("auto", environment)
