"""Owns finding predictions that are unfinished, or marked to be made again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial as bind
from pathlib import Path

from wsi_seg.errors import OutputError
from wsi_seg.files.object_folder import for_each
from wsi_seg.files.shared import make_folder, names_in
from wsi_seg.inference.options import STRIP_ROWS
from wsi_seg.store import SlideStore, delete
from wsi_seg.store.journal import read_settings
from wsi_seg.store.names import AGAIN, JOURNAL, METADATA, PARTIAL


def is_complete(out: Path, slide: str) -> bool:
    """Return whether a slide has a finished prediction that is not being made again."""
    partial = out / PARTIAL / slide
    return (out / slide / METADATA).is_file() and not any(
        (partial / name).is_file() for name in (JOURNAL, AGAIN)
    )


def incomplete(out: Path, slides: Iterable[str]) -> list[str]:
    """Select the slides whose prediction is not complete; see `is_complete`."""
    names = list(slides)
    complete = for_each(out, bind(is_complete, out), names)
    return [name for name, there in zip(names, complete, strict=True) if not there]


def mark_again(partial: Path) -> None:
    """Mark that a finished prediction is made again, until there is a journal of the new one.

    Raises
    ------
    OutputError
        If the mark cannot be written.
    """
    try:
        make_folder(partial)
        (partial / AGAIN).touch()
    except OSError as error:
        raise OutputError.of(partial, error) from error


@contextmanager
def overwriting(stores: Sequence[SlideStore], out: Path) -> Iterator[None]:
    """Mark predictions that are made again, so that a later run without `overwrite` continues.

    A prediction with a mark, or with the journal of a new one, does not count as complete.
    """
    folders = [out / PARTIAL / store.name for store in stores if (out / store.name).exists()]
    for folder in folders:
        mark_again(folder)
    yield
    for folder in folders:
        with suppress(OSError):  # keep the predictions of slides that could not be planned
            (folder / AGAIN).unlink()
            folder.rmdir()


def unfinished_settings(stores: Sequence[SlideStore], out: Path) -> dict[str, Mapping[str, object]]:
    """Read the settings of unfinished predictions, by the names of their slides.

    Strip height, batch size and compilation were chosen for the memory and the device of the first
    run; a prediction can only be continued with the same ones.
    """
    found = {}
    begun = set(names_in(out / PARTIAL))
    for store in stores:
        if store.name not in begun:
            continue
        settings = read_settings(out / PARTIAL / store.name / JOURNAL)
        strip_px = settings.get("strip_px")
        if isinstance(strip_px, int) and strip_px > 0 and strip_px % STRIP_ROWS == 0:
            found[store.name] = settings
    return found


def delete_others(out: Path, identity: object) -> None:
    """Delete all predictions of other models, unfinished or complete, from a collection.

    Parameters
    ----------
    out
        Prediction collection; need not exist.
    identity
        Identity of the model whose predictions are kept; see `ensemble.Model.identity`.
    """
    for journal in [*out.glob(f"*/{JOURNAL}"), *out.glob(f"{PARTIAL}/*/{JOURNAL}")]:
        if read_settings(journal).get("checkpoint") != identity:
            delete(journal.parent.parent)
