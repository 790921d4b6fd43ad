"""Owns the run of `wsi-seg tile`: slide files in, a collection of stores out; resumable."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from wsi_seg.errors import SlideError, StoreError, WsiSegError
from wsi_seg.ingest.names import NamedSlides, name_slides
from wsi_seg.ingest.plan import AUTO, Codec, LevelPlan, plan_levels
from wsi_seg.ingest.privacy import require_allowed
from wsi_seg.ingest.recode import recode_strip
from wsi_seg.ingest.report import TiledSlide, TileReport
from wsi_seg.ingest.verbatim import copy_shard_row
from wsi_seg.masks.labels import write_tissue
from wsi_seg.progress import Progress, Silent
from wsi_seg.slides import (
    Slide,
    open_slide,
    source_bytes,
    source_digest,
    source_name,
)
from wsi_seg.slides.icc import IccSlide, converted
from wsi_seg.slides.window import OpenOptions
from wsi_seg.store.arrays import LevelArray, read_level_array
from wsi_seg.store.info import LevelInfo, SourceInfo, StoreInfo
from wsi_seg.store.journal import Journal
from wsi_seg.store.layout import (
    Layout,
    create_collection,
    create_multiscale,
    update_names,
)
from wsi_seg.store.multiscale import open_multiscale
from wsi_seg.store.names import JOURNAL, LABELS, METADATA, OWN, PARTIAL
from wsi_seg.store.pyramid import reduced_strip
from wsi_seg.store.shards import shard_checksum
from wsi_seg.store.slide_store import SlideStore
from wsi_seg.store.writer import commit, delete, remove_if_empty, write_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Options:
    """How slides are tiled; see `tile_slides`."""

    codec: Codec
    opening: OpenOptions
    overwrite: bool
    mpp: Mapping[str, float]


def tile_slides(
    paths: Sequence[Path | str] | NamedSlides,
    out: Path | str,
    *,
    codec: Codec = AUTO,
    opening: OpenOptions = OpenOptions(),  # noqa: B008 (frozen)
    overwrite: bool = False,
    workers: int = 2,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> TileReport:
    """Write slides into a collection, each with its tissue mask; repeat it to resume.

    Slides that fail, or have the name of another one, are named in the result, so that work on the
    others can go on: call its `TileReport.require_whole` in the end, to raise an error for them.

    Parameters
    ----------
    paths
        Slide files, and folders that are searched for them; or some of them, or with other names,
        as `wsi_seg.ingest.names.name_slides` gives them.
    out
        Collection to make or to add to.
    codec
        How levels are encoded.
    opening
        Replaces what the files say.
    overwrite
        Whether stores that exist are made again.
    workers
        Slides worked on at the same time.
    progress
        Advanced by finished MB of the files.

    Returns
    -------
    TileReport
        Of each slide that is in the collection now.

    Raises
    ------
    SlideError
        If there is no slide, or the only one fails.
    OutputError
        If the collection cannot be written.
    BatchError
        If all slides fail.

    Examples
    --------
    >>> tile_slides(["slides/"], "store.zarr").require_whole()  # doctest: +SKIP
    """
    out = Path(out)
    found = paths if isinstance(paths, NamedSlides) else name_slides(paths)
    is_new = not (out / METADATA).exists()
    create_collection(out)
    started = time.perf_counter()
    options = _Options(codec, opening, overwrite, found.mpp)
    done, failures = _Batch(out, options, progress).run(found.names, workers)
    remove_if_empty(out)
    if is_new and not done and not (out / PARTIAL).exists():
        (out / METADATA).unlink()
        (out / OWN / METADATA).unlink()
        with contextlib.suppress(OSError):  # it was there before, or is held by the command
            (out / OWN).rmdir()
            out.rmdir()
    else:
        update_names(out)
    errors = {found.names[path]: error for path, error in failures.items()}
    errors |= found.clashes
    if len(errors) == 1 and not done:
        raise next(iter(errors.values()))
    reasons = {name: str(error) for name, error in errors.items()}
    slides = tuple(sorted(done, key=lambda slide: slide.name))
    report = TileReport(slides, out, time.perf_counter() - started, failures=reasons)
    if not slides:
        report.require_whole()
    return report


class _Batch:
    """Slides of one run: a few at a time, failures kept apart."""

    def __init__(self, out: Path, options: _Options, progress: Progress) -> None:
        self._out, self._options, self._progress = out, options, progress
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(
        self, names: Mapping[Path, str], workers: int
    ) -> tuple[list[TiledSlide], dict[Path, WsiSegError]]:
        done: list[TiledSlide] = []
        failures: dict[Path, WsiSegError] = {}
        total = sum(source_bytes(path) for path in names)
        self._progress.start("tile", total / 1e6, "MB")
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="wsi-tile") as pool:
            jobs: dict[Future[TiledSlide], Path] = {
                pool.submit(self._tile, path, name): path for path, name in names.items()
            }
            try:
                for job in as_completed(jobs):
                    self._collect(job, jobs[job], done, failures)
            except BaseException:
                # Ctrl-C: units under way are finished, the rest is left for the next run.
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._progress.finish()
        return done, failures

    def _collect(
        self,
        job: Future[TiledSlide],
        path: Path,
        done: list[TiledSlide],
        failures: dict[Path, WsiSegError],
    ) -> None:
        try:
            done.append(job.result())
        except WsiSegError as error:
            logger.info("%s failed: %s", path, error)
            failures[path] = error
        except Exception as error:
            logger.exception("%s failed unexpectedly", path)
            failures[path] = SlideError(
                f"{path}: unexpected {type(error).__name__}: {error}; this is a defect of wsi_seg"
            )

    def _tile(self, path: Path, name: str) -> TiledSlide:
        opening = self._options.opening
        mpp = self._options.mpp.get(name, opening.mpp)
        with open_slide(path, mpp=mpp, window=opening.window, scene=opening.scene) as file:
            slide = converted(file) if opening.icc else file
            job = _SlideJob(slide, name, self._out, self._options)
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

    def _advance(self, nbytes: float) -> None:
        with self._lock:
            self._progress.advance(nbytes / 1e6)


@dataclass(frozen=True, slots=True)
class _Unit:
    """One row of shards: smallest work that is recorded and never done twice."""

    plan: LevelPlan
    array: LevelArray
    row: int
    area: int

    @property
    def key(self) -> str:
        return f"{self.plan.level}/{self.row}"

    @property
    def y(self) -> int:
        return self.row * self.array.shard.height


class _SlideJob:
    """One slide while it is written to the collection."""

    def __init__(self, slide: Slide, name: str, out: Path, options: _Options) -> None:
        self.source_bytes = source_bytes(slide.path)
        self._slide, self._name, self._options = slide, name, options
        self._final, self._partial = out / name, out / PARTIAL / name
        shown = options.opening.window
        self._info = StoreInfo(
            source=SourceInfo(
                name=source_name(slide.path),
                bytes=self.source_bytes,
                sha256_of_ends=source_digest(slide.path),
            ),
            codec=str(options.codec),
            scene=slide.scene,
            window=None if shown is None else (shown.low, shown.high),
            icc=slide.icc if isinstance(slide, IccSlide) else None,
            slice_mm=slide.slice_mm,
            mpp_source=slide.mpp_source,
            reader=slide.format,
            versions={name: version(name) for name in ("tifffile", "imagecodecs")},
        )
        self._settings = _settings(self._info, slide.pyramid.mpp)
        if options.overwrite:
            delete(self._partial)

    def present(self) -> bool:
        """Whether the finished store is there; a store of another file is an error."""
        if self._options.overwrite or not self._final.exists():
            return False
        store = self._store()
        there, asked = _settings(store.info, store.image.slide_mpp), self._settings
        changed = [name for name in asked if there[name] != asked[name]]
        if changed:
            raise StoreError(
                f"{self._final} exists and differs in {' and '.join(changed)}; use --overwrite "
                "to replace it, or another --out"
            )
        return True

    def begin(self) -> None:
        """Write all metadata, and continue the journal of an earlier run."""
        self._plans = plan_levels(self._slide, self._options.codec)
        levels = tuple(LevelInfo(plan.encoding, plan.reason) for plan in self._plans)
        attributes = replace(self._info, levels=levels).to_json()
        require_allowed(attributes)
        journal_path = self._partial / JOURNAL
        journal = Journal(journal_path, self._settings)
        if not journal.done:
            # Nothing is lost, and whatever a kill left half made is gone.
            delete(self._partial)
            journal = Journal(journal_path, self._settings)
        self._journal = journal
        layout = Layout(
            levels=tuple(plan.layout for plan in self._plans),
            channels=3,
            mpp=self._slide.pyramid.mpp,
        )
        create_multiscale(self._partial, layout, attributes)

    def units(self) -> Iterator[_Unit]:
        """List the work, from the finest level to the coarsest."""
        for plan in self._plans:
            array = read_level_array(self._partial / str(plan.level))
            for row in range(-(-array.extent.height // array.shard.height)):
                height = min(array.shard.height, array.extent.height - row * array.shard.height)
                yield _Unit(plan, array, row, height * array.extent.width)

    def do(self, unit: _Unit) -> None:
        """Do one unit, unless the journal has it and its shards are as they were written."""
        if self._journal.done.get(unit.key) == _checksums(unit):
            return
        self._journal.record(unit.key, self._write(unit))

    def finish(self) -> None:
        """Add the tissue mask, and give the store its final name."""
        delete(self._partial / LABELS)
        image = open_multiscale(self._partial)
        write_tissue(SlideStore(self._partial, self._name, image))
        (self._partial / JOURNAL).unlink()
        commit(self._partial, self._final, replace=self._options.overwrite, known=self._digests())

    def _digests(self) -> dict[str, int]:
        """Collect what the journal knows of each shard, so that it is not read again."""
        found = {}
        for key, checksums in self._journal.done.items():
            level, row = key.split("/")
            for column, checksum in enumerate(checksums if isinstance(checksums, list) else []):
                if isinstance(checksum, int):
                    found[f"{level}/c/0/{row}/{column}"] = checksum
        return found

    def report(self, *, skipped: bool) -> TiledSlide:
        """Figures of the finished store."""
        extent = self._slide.pyramid.extent
        files = (file for file in self._final.rglob("*") if file.is_file())
        return TiledSlide(
            name=self._name,
            height=extent.height,
            width=extent.width,
            mpp=self._slide.pyramid.mpp,
            levels=tuple(level.encoding for level in self._store().info.levels),
            source_bytes=self.source_bytes,
            store_bytes=sum(file.stat().st_size for file in files),
            skipped=skipped,
        )

    def _store(self) -> SlideStore:
        return SlideStore(self._final, self._name, open_multiscale(self._final))

    def _write(self, unit: _Unit) -> list[int | None]:
        plan, array = unit.plan, unit.array
        if plan.computed:
            self._slide.close()  # it may hold the pixels of a whole picture
            source = read_level_array(self._partial / str(plan.level - 1))
            return write_rows(array, unit.y, reduced_strip(source, array, unit.y, nearest=False))
        if plan.streams is not None:
            return copy_shard_row(plan.streams, array, unit.row)
        return recode_strip(self._slide, plan.level, array, unit.y)


def _settings(info: StoreInfo, mpp: float | None) -> dict[str, object]:
    """Pick what decides the bytes of a store: only with the same it is continued, or kept."""
    known = info.to_json()
    return {name: known.get(name) for name in ("source", "codec", "scene", "window", "icc")} | {
        "mpp": mpp
    }


def _checksums(unit: _Unit) -> list[int | None]:
    columns = -(-unit.array.extent.width // unit.array.shard.width)
    paths = [unit.array.shard_path(unit.row, column) for column in range(columns)]
    return [shard_checksum(path) for path in paths]
