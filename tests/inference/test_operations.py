"""What one more small slide costs a file system: on a network each operation asks a server."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.cards import make_card
from tests.makers.memory import PixelPredictor
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection
from wsi_seg.testing.stores import make_store

MODEL = Model((Member(make_card("a", tile_px=64), "toy"),))
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}
FEW, MANY = 2, 6


@pytest.fixture
def operations():
    """Counts operations while the list is not empty; a hook cannot be removed."""
    noted, at_work = Counter[str](), [True]

    def note(event, arguments):
        if at_work and event in EVENTS:
            noted[event] += 1

    sys.addaudithook(note)
    yield noted
    at_work.clear()


def red(tiles):
    return tiles[:, None, :, :, 0].astype(np.float32) / np.float32(255)


def load(member, options, compiled):
    return PixelPredictor(red)


def test_a_small_slide_costs_a_bounded_number_of_operations(tmp_path, operations):
    make_store(tmp_path / "s.zarr", "a", 64, 64)
    (store,) = open_collection(tmp_path / "s.zarr")
    options = InferOptions(overlap=0.0, precision="fp32", batch=4)
    counts = []
    for slides in (1, FEW, MANY):  # the first one loads what is loaded once
        stores = [replace(store, name=f"a{number}") for number in range(slides)]
        executor = SerialExecutor(MODEL, options, load=load)
        operations.clear()
        out = tmp_path / f"p{slides}.zarr"
        infer_with(MODEL, stores, out, options, executor=executor, progress=Silent())
        counts.append(operations.total())
    each = (counts[2] - counts[1]) / (MANY - FEW)
    # Twelve files in fourteen folders, each made, waited for and named, are 80 of them.
    assert 60 < each <= 125, each
