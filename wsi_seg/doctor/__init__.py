"""Checks a machine: what works, what is missing, and what ``infer`` would choose.

Nothing is changed, except for a hidden temporary folder.

Examples
--------
>>> from pathlib import Path
>>> examine(Path("store.zarr")).works  # doctest: +SKIP
True
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wsi_seg.doctor.finding import Examination, Finding, Verdict
from wsi_seg.doctor.folder import examine_folder
from wsi_seg.doctor.software import (
    BROKEN,
    error_line,
    examine_extras,
    examine_libraries,
    requirements,
)

__all__ = ["Examination", "Finding", "Verdict", "examine"]


def examine(folder: Path) -> Examination:
    """Check software, machine, decoders and a folder.

    Parameters
    ----------
    folder
        Folder of stores, runs and predictions; need not exist.

    Returns
    -------
    Examination
        Its `Examination.works` is False if something required does not work.
    """
    required = requirements()
    with ThreadPoolExecutor(1) as pool:
        waited_for = pool.submit(lambda: tuple(examine_folder(folder)))
        # The disk is tested while torch is imported, which takes seconds.
        return Examination(
            {
                "Software": (*examine_libraries(required), *examine_extras(required)),
                "Machine": (*_part("machine", _machine), *_part("GPU", _gpus)),
                "Decoders": tuple(_part("decoders", _decoders)),
                "Folder": waited_for.result(),
                "What infer would choose": tuple(_part("choice", _choices)),
            }
        )


def _part(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield findings until one needs a library that cannot be loaded."""
    try:
        yield from look()
    except BROKEN as error:
        value = f"cannot be checked: {error_line(error)}"
        yield Finding(name, value, "bad", "see the library above")


def _machine() -> Iterator[Finding]:
    from wsi_seg.doctor.machine import examine_machine

    yield from examine_machine()


def _gpus() -> Iterator[Finding]:
    from wsi_seg.doctor.gpus import examine_gpus

    yield from examine_gpus()


def _decoders() -> Iterator[Finding]:
    from wsi_seg.doctor.decoders import examine_decoders

    yield from examine_decoders()


def _choices() -> Iterator[Finding]:
    from wsi_seg.doctor.choice import examine_choices

    yield from examine_choices()
