"""Looks at a machine and says what works, what lacks, and what ``infer`` would choose.

It reads and tries; it changes nothing, but for a hidden folder that it removes again.

Examples
--------
>>> from pathlib import Path
>>> examine(Path("store.zarr")).works  # doctest: +SKIP
True
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wsi_seg.doctor.decoders import examine_decoders
from wsi_seg.doctor.finding import Examination, Finding, Verdict
from wsi_seg.doctor.folder import examine_folder
from wsi_seg.doctor.software import examine_extras, examine_libraries, requirements

__all__ = ["Examination", "Finding", "Verdict", "examine"]


def examine(folder: Path) -> Examination:
    """Look at software, machine, decoders and a folder.

    Parameters
    ----------
    folder
        Where stores, runs and predictions are or shall be.

    Returns
    -------
    Examination
        Its `Examination.works` is False if something needed does not work.
    """
    required = requirements()
    with ThreadPoolExecutor(1) as pool:
        waited_for = pool.submit(lambda: tuple(examine_folder(folder)))
        # The disk is tried while torch is imported, which takes seconds.
        from wsi_seg.doctor.choice import examine_choices
        from wsi_seg.doctor.machine import examine_machine

        return Examination(
            {
                "Software": (*examine_libraries(required), *examine_extras(required)),
                "Machine": tuple(examine_machine()),
                "Decoders": tuple(examine_decoders()),
                "Folder": waited_for.result(),
                "What infer would choose": tuple(examine_choices()),
            }
        )
