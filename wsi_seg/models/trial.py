"""Owns trial passes: what is found out about a network on a tiny image."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def trial_pass() -> Iterator[None]:
    """Compute on one thread, without gradients.

    On a tiny image threads gain nothing and can cost seconds: where other programs use the cores,
    each of hundreds of layers waits until its threads get their turn.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
