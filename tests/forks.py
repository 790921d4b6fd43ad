"""One server of forks for all tests: each process has one, and its first list of imports counts."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess

SERVER = multiprocessing.get_context("forkserver")

if multiprocessing.current_process().name == "MainProcess":  # not in its children
    SERVER.set_forkserver_preload(
        ["wsi_seg.cli.app", "wsi_seg.ingest.run", "wsi_seg.masks.annotate", "wsi_seg.exporting.run",
         "wsi_seg.evaluation.share", "wsi_seg.learn.patches", "segmentation_models_pytorch",
         "tests.inference.test_shards", "typer.testing"]
    )  # fmt: skip
    forkserver.ensure_running()


def begin(work: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a function of a module in a process of its own, in this environment."""
    child = SERVER.Process(target=_work, args=(dict(os.environ), work, arguments))
    child.start()
    return child


def begin_verb(*words: object) -> BaseProcess:
    """Start ``wsi-seg`` with these words in a process of its own, in this environment."""
    return begin(_verb, *words)


def _work(
    environment: dict[str, str], work: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    os.environ.update(environment)
    work(*arguments)


def _verb(*words: object) -> None:
    from wsi_seg.cli.app import main

    sys.argv = ["wsi-seg", *map(str, words)]
    main()
