"""Inference again and again in one process: memory, threads and file handles do not grow."""

import gc
import os
import threading
from pathlib import Path

import psutil
import pytest
import torch

from tests.cards import make_card
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.progress import Silent
from wsi_seg.store import delete, open_collection
from wsi_seg.testing.stores import make_store

# An hour is some thousand rounds; by a hundred a leak of 100 kB a round shows.
ROUNDS = int(os.environ.get("WSI_SEG_SOAK_ROUNDS", "100"))
WARM = 10
# Allocators keep what they were given; a leak goes on.
SLACK_BYTES = 16 << 20


@pytest.mark.torture
def test_nothing_grows(tmp_path):
    make_store(tmp_path / "store.zarr", "one", 200, 150)
    make_store(tmp_path / "store.zarr", "two", 64, 90)
    card = make_card("gland")
    save_checkpoint(tmp_path / "m.safetensors", build_network(card.spec), card)
    options = InferOptions(precision="fp32", batch=4, device="cpu")
    torch.set_num_threads(1)
    seen = []
    for _ in range(ROUNDS):
        infer(
            open_collection(tmp_path / "store.zarr"),
            tmp_path / "m.safetensors",
            tmp_path / "pred.zarr",
            options,
            progress=Silent(),
        )
        delete(tmp_path / "pred.zarr")
        gc.collect()
        memory = psutil.Process().memory_info().rss
        seen.append((memory, threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))))
    memory, threads, handles = zip(*seen[WARM:], strict=True)
    half = len(memory) // 2
    # Pools begin their threads when they first need them; a leak would go on with each round.
    assert max(threads[half:]) - max(threads[:half]) < 3, threads
    assert max(handles[half:]) - max(handles[:half]) < 3, handles
    assert min(memory[half:]) - min(memory[:half]) < SLACK_BYTES, memory
