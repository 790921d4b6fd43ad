"""Owns resumable runs of `wsi-seg tile`: read slide files, and write a collection of stores."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from wsi_seg.errors import ConfigError, SlideError, StoreError, WsiSegError
from wsi_seg.files.object_path import object_path, place
from wsi_seg.files.stage import SLIDES, fetch_one, staging
from wsi_seg.ingest.job import SlideJob, TileOptions, named_again, tiled_before
from wsi_seg.ingest.names import NamedSlides, name_slides
from wsi_seg.ingest.part import require_drawable
from wsi_seg.ingest.plan import AUTO, Codec
from wsi_seg.ingest.report import TiledSlide, TileReport
from wsi_seg.progress import Progress, Silent
from wsi_seg.shard import Shard
from wsi_seg.slides import (
    open_slide,
    source_bytes,
)
from wsi_seg.slides.icc import converted
from wsi_seg.slides.window import OpenOptions
from wsi_seg.store.lock import sharing
from wsi_seg.store.names import METADATA, PARTIAL
from wsi_seg.store.own import remove_own_folder
from wsi_seg.store.slide_list import create_collection, update_names
from wsi_seg.store.turns import Turn, Turns, taking_turns
from wsi_seg.store.writer import delete, remove_if_empty

logger = logging.getLogger(__name__)


def tile_slides(
    paths: Sequence[Path | str] | NamedSlides,
    out: Path | str,
    *,
    codec: Codec = AUTO,
    opening: OpenOptions = OpenOptions(),  # noqa: B008 (frozen)
    overwrite: bool = False,
    workers: int = 2,
    stage: Path | None = None,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> TileReport:
    """Write slides into a collection, each with its tissue mask; repeat it to resume.

    Slides that fail, or have the same name as another slide, do not stop the others. They are
    listed in the report; `TileReport.require_whole` raises an error for them. Several processes can
    write to one collection; see `NamedSlides.shard`.

    Parameters
    ----------
    paths
        Slide files, and folders to search for slide files; or the result of
        `wsi_seg.ingest.names.name_slides`, which can select and rename slides.
    out
        Collection to create or to add to.
    codec
        Encoding of levels.
    opening
        Options of opening slides, which override the metadata of the files.
    overwrite
        Whether to replace existing stores.
    workers
        Number of slides to tile concurrently.
    stage
        Folder for temporary copies of slides of object stores, two at a time; None is the system's
        folder of temporary files.
    progress
        Advanced by the finished MB of slide files.

    Returns
    -------
    TileReport
        Report of all requested slides that are in the collection now.

    Raises
    ------
    SlideError
        If there is no slide, or the only one fails.
    OutputError
        If the collection cannot be written.
    BusyError
        If another command is running on the collection.
    BatchError
        If all slides fail.

    Examples
    --------
    >>> tile_slides(["slides/"], "store.zarr").require_whole()  # doctest: +SKIP
    """
    out = place(out)
    found = paths if isinstance(paths, NamedSlides) else name_slides(paths)
    shard = found.shard
    require_drawable(found.inside)
    if shard is not None and overwrite:
        raise ConfigError(
            f"got --shard {shard} with --overwrite; expected one without the other; choose another "
            "--out"
        )
    started = time.perf_counter()
    options = TileOptions(codec, opening, overwrite, found.mpp, found.inside)
    batch = _Batch(out, options, workers, stage, progress)
    elsewhere = 0
    if shard is None:
        with sharing(out, "wsi-seg tile"):
            batch.run_all(found.names)
    else:
        elsewhere = batch.run_share(found.names, shard)
    done, failures = batch.done, batch.failures
    errors = {found.names[path]: error for path, error in failures.items()}
    errors |= found.clashes
    if len(errors) == 1 and not done:
        raise next(iter(errors.values()))
    reasons = {name: str(error) for name, error in errors.items()}
    slides = tuple(sorted(done, key=lambda slide: slide.name))
    report = TileReport(slides, out, time.perf_counter() - started, elsewhere, failures=reasons)
    if not slides:
        report.require_whole()
    return report


class _Batch:
    """Slides of one run, tiled a few at a time, and their failures."""

    def __init__(
        self,
        out: Path,
        options: TileOptions,
        workers: int,
        stage: Path | None,
        progress: Progress,
    ) -> None:
        self._stage, self._staged = stage, threading.BoundedSemaphore(SLIDES)
        self._out, self._options, self._progress = out, options, progress
        self._workers = max(1, workers)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.done: list[TiledSlide] = []
        self.failures: dict[Path, WsiSegError] = {}

    def run_all(self, names: Mapping[Path, str]) -> None:
        """Tile slides; if all fail, remove the collection that was created for them."""
        out = self._out
        is_new = not (out / METADATA).exists()
        create_collection(out)
        self.run(names)
        remove_if_empty(out)
        if is_new and not self.done and not (out / PARTIAL).exists():
            (out / METADATA).unlink()
            remove_own_folder(out)
        else:
            update_names(out)

    def run_share(self, names: Mapping[Path, str], shard: Shard) -> int:
        """Tile a share, then slides of exited processes; return the number left to others."""
        paths = {name: path for path, name in names.items()}
        options = self._options
        with taking_turns(
            self._out,
            "tile",
            shard,
            {name: source_bytes(path) for name, path in paths.items()},
            options={
                "codec": str(options.codec),
                "opening": asdict(options.opening),
                "mpp": options.mpp,
                "inside": options.inside and options.inside.description,
            },
            is_current=lambda name, _: (self._out / name / METADATA).is_file(),
            progress=self._progress,
            creates=True,
        ) as turns:
            for some in turns:
                self.run({paths[name]: name for name in some}, turns)
            remove_if_empty(self._out)
            update_names(self._out)
            return len(paths) - len(self.done) - len(self.failures)

    def run(self, names: Mapping[Path, str], turns: Turns | None = None) -> None:
        """Tile slides; with turns, record the outcome of each for other processes."""
        total = sum(source_bytes(path) for path in names)
        self._progress.start("tile", total / 1e6, "MB")
        with ThreadPoolExecutor(self._workers, thread_name_prefix="wsi-tile") as pool:
            jobs: dict[Future[TiledSlide | None], Path] = {
                pool.submit(self._noted, path, name, turns): path for path, name in names.items()
            }
            try:
                for job in as_completed(jobs):
                    self._collect(job, jobs[job])
            except BaseException:
                # Ctrl-C: finish the current units, and leave the rest to the next run.
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._progress.finish()

    def _collect(self, job: Future[TiledSlide | None], path: Path) -> None:
        try:
            if (found := job.result()) is not None:
                self.done.append(found)
        except WsiSegError as error:
            logger.info("%s failed: %s", path, error)
            self.failures[path] = error
        except Exception as error:
            logger.exception("%s failed unexpectedly", path)
            self.failures[path] = SlideError(
                f"{path}: unexpected {type(error).__name__}: {error}; this is a defect of wsi_seg"
            )

    def _noted(self, path: Path, name: str, turns: Turns | None) -> TiledSlide | None:
        """Tile a slide; return None if another process has claimed or finished it."""
        if turns is None:
            return self._tile(path, name)
        found = None
        with turns.turn(name) as turn:
            if turn is None:
                self._advance(source_bytes(path))
            else:
                found = self._tile(path, name, turn)
        if turn is not None and found is None and (self._out / name / METADATA).is_file():
            delete(self._out / PARTIAL / name)  # written after another one finished
        return found

    def _tile(self, path: Path, name: str, turn: Turn | None = None) -> TiledSlide:
        opening = self._options.opening
        mpp = self._options.mpp.get(name, opening.mpp)
        if (known := tiled_before(path, self._out / name, self._options, mpp)) is not None:
            self._advance(known.source_bytes)
            return known
        if (known := named_again(path, self._out, name, self._options, mpp)) is not None:
            self._advance(known.source_bytes)
            return known
        with (
            self._local(path) as local,
            open_slide(local, mpp=mpp, window=opening.window, scene=opening.scene) as file,
        ):
            slide = converted(file) if opening.icc else file
            job = SlideJob(slide, name, self._out, self._options, turn)
            if job.present():
                self._advance(job.source_bytes)
                return job.report(skipped=True)
            job.begin()
            units = list(job.units())
            share = job.source_bytes / max(1, sum(unit.area for unit in units))
            for unit in units:
                if self._stop.is_set():
                    raise StoreError(f"{name}: stopped; repeat the command to continue")
                job.do(unit)
                self._advance(unit.area * share)
            job.finish()
            return job.report(skipped=False)

    @contextlib.contextmanager
    def _local(self, path: Path) -> Iterator[Path]:
        """Yield a local path of a slide: its own, or that of a copy, which is then removed."""
        if (remote := object_path(path)) is None:
            yield path
            return
        with self._staged, staging(self._stage) as folder:
            fetch_one(remote, folder / path.name)
            yield folder / path.name

    def _advance(self, nbytes: float) -> None:
        with self._lock:
            self._progress.advance(nbytes / 1e6)
