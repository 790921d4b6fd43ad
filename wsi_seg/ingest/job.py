"""Owns tiling one slide: the units of work, and those that earlier runs have finished."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import StoreError
from wsi_seg.files.object_path import object_path
from wsi_seg.ingest.part import only_part, wanted_chunks, write_mask_of
from wsi_seg.ingest.plan import Codec, LevelPlan, plan_levels
from wsi_seg.ingest.privacy import require_allowed
from wsi_seg.ingest.recode import recode_strip
from wsi_seg.ingest.report import TiledSlide
from wsi_seg.ingest.verbatim import copy_shard_row
from wsi_seg.masks.inside import Inside
from wsi_seg.slides import (
    Slide,
    source_bytes,
    source_digest,
    source_name,
)
from wsi_seg.slides.icc import IccSlide
from wsi_seg.slides.window import OpenOptions
from wsi_seg.store.arrays import LevelArray, read_level_array
from wsi_seg.store.group import label_list
from wsi_seg.store.info import LevelInfo, SourceInfo, StoreInfo
from wsi_seg.store.journal import Journal
from wsi_seg.store.layout import Layout, create_multiscale
from wsi_seg.store.multiscale import open_multiscale
from wsi_seg.store.names import DIGESTS, JOURNAL, LABELS, METADATA, PARTIAL, TISSUE
from wsi_seg.store.pyramid import reduced_strip
from wsi_seg.store.shards import shard_checksum
from wsi_seg.store.slide_store import SlideStore
from wsi_seg.store.turns import Turn
from wsi_seg.store.writer import delete, rename, seal, write_rows


@dataclass(frozen=True, slots=True)
class TileOptions:
    """Options of tiling; see `tile_slides`."""

    codec: Codec
    opening: OpenOptions
    overwrite: bool
    mpp: Mapping[str, float]
    inside: Inside | None


@dataclass(frozen=True, slots=True)
class Unit:
    """One row of shards of a level: the smallest unit of work that the journal records."""

    plan: LevelPlan
    array: LevelArray
    row: int
    area: int
    wanted: NDArray[np.bool_] | None

    @property
    def key(self) -> str:
        """Name of the unit in the journal."""
        return f"{self.plan.level}/{self.row}"

    @property
    def y(self) -> int:
        """First row of pixels, in pixels of the level."""
        return self.row * self.array.shard.height


class SlideJob:
    """Writes one slide to the collection."""

    def __init__(
        self, slide: Slide, name: str, out: Path, options: TileOptions, turn: Turn | None = None
    ) -> None:
        self.source_bytes = source_bytes(slide.path)
        self._slide, self._name, self._options, self._turn = slide, name, options, turn
        self._final, self._partial = out / name, out / PARTIAL / name
        self._info = replace(
            _requested_info(slide.path, options),
            scene=slide.scene,
            icc=slide.icc if isinstance(slide, IccSlide) else None,
            slice_mm=slide.slice_mm,
            mpp_source=slide.mpp_source,
            reader=slide.format,
            versions={name: version(name) for name in ("tifffile", "imagecodecs")},
        )
        self._settings = self._info.settings(slide.pyramid.mpp)
        self._replaced: tuple[str, ...] = ()
        if options.overwrite:
            delete(self._partial)

    def present(self) -> bool:
        """Return whether the store is finished; a store with other settings is an error."""
        if self._options.overwrite or not (self._final / METADATA).is_file():
            return False
        store = self._store()
        there, asked = store.info.settings(store.image.slide_mpp), self._settings
        changed = [name for name in {**there, **asked} if there.get(name) != asked.get(name)]
        if changed:
            keep = "; to keep it, give its mpp again (--mpp, or a column of --only FILE.csv)"
            raise StoreError(
                f"{self._final} exists and differs in {' and '.join(changed)}; use --overwrite "
                f"to replace it, or another --out{keep if 'mpp' in changed else ''}"
            )
        return True

    def begin(self) -> None:
        """Write all metadata, and continue with the journal of an earlier run."""
        self._plans = plan_levels(self._slide, self._options.codec)
        levels = tuple(LevelInfo(plan.encoding, plan.reason) for plan in self._plans)
        attributes = replace(self._info, levels=levels).to_json()
        require_allowed(attributes)
        journal_path = self._partial / JOURNAL
        journal = Journal(journal_path, self._settings)
        self._require_mine()
        if not journal.done:
            # No unit is finished: remove what an interrupted run has left.
            delete(self._partial)
            journal = Journal(journal_path, self._settings)
        self._journal = journal
        # If a run was killed while it renamed the sealed store, only that is missing.
        self._is_sealed = bool(journal.done) and (self._partial / DIGESTS).is_file()
        if self._is_sealed:
            return
        full = self._slide.pyramid.extent
        self._plans = tuple(only_part(plan, self._options.inside, full) for plan in self._plans)
        layout = Layout(
            levels=tuple(plan.layout for plan in self._plans),
            channels=3,
            mpp=self._slide.pyramid.mpp,
        )
        create_multiscale(self._partial, layout, attributes)

    def units(self) -> Iterator[Unit]:
        """Yield all units of work, from the finest level to the coarsest."""
        for plan in () if self._is_sealed else self._plans:
            array = read_level_array(self._partial / str(plan.level))
            full, inside = self._slide.pyramid.extent, self._options.inside
            wanted = wanted_chunks(inside, full, array.extent, array.chunk)
            for row in range(-(-array.extent.height // array.shard.height)):
                height = min(array.shard.height, array.extent.height - row * array.shard.height)
                yield Unit(plan, array, row, height * array.extent.width, wanted)

    def do(self, unit: Unit) -> None:
        """Write one unit, unless it is in the journal and its shards have the same checksums."""
        done = self._journal.done.get(unit.key)
        if done is not None and done == _checksums(unit):
            return
        self._require_mine()
        self._journal.record(unit.key, self._write(unit))

    def _require_mine(self) -> None:
        if self._turn is not None:
            self._turn.require_mine()

    def finish(self) -> None:
        """Add the tissue mask, and rename the store to its final path."""
        self._require_mine()
        if not self._is_sealed:
            delete(self._partial / LABELS)
            image = open_multiscale(self._partial)
            write_mask_of(SlideStore(self._partial, self._name, image), self._options.inside)
            seal(self._partial, self._digests())
        if object_path(self._partial) is None:
            (self._partial / JOURNAL).unlink(missing_ok=True)
        if self._options.overwrite:
            with suppress(StoreError):  # damaged, which may be why it is replaced
                self._replaced = tuple(sorted({*label_list(self._final / LABELS)} - {TISSUE}))
        rename(self._partial, self._final, replace=self._options.overwrite, without=(JOURNAL,))

    def _digests(self) -> dict[str, int]:
        """Collect the checksums of shards from the journal, which saves reading the shards."""
        found = {}
        for key, checksums in self._journal.done.items():
            level, row = key.split("/")
            for column, checksum in enumerate(checksums if isinstance(checksums, list) else []):
                if isinstance(checksum, int):
                    found[f"{level}/c/0/{row}/{column}"] = checksum
        return found

    def report(self, *, skipped: bool) -> TiledSlide:
        """Return the report of the finished store."""
        found = TiledSlide.of(self._store(), self.source_bytes, skipped=skipped)
        return replace(found, replaced_labels=self._replaced)

    def _store(self) -> SlideStore:
        return SlideStore(self._final, self._name, open_multiscale(self._final))

    def _write(self, unit: Unit) -> list[int | None]:
        plan, array = unit.plan, unit.array
        if plan.computed:
            self._slide.close()  # plain images may be in memory as a whole
            source = read_level_array(self._partial / str(plan.level - 1))
            return write_rows(array, unit.y, reduced_strip(source, array, unit.y, nearest=False))
        if plan.streams is not None:
            return copy_shard_row(plan.streams, array, unit.row)
        return recode_strip(self._slide, plan.level, array, unit.y, unit.wanted)


def tiled_before(
    path: Path, final: Path, options: TileOptions, mpp: float | None
) -> TiledSlide | None:
    """Return the report of a remote slide's existing store, without fetching the slide.

    None if there is no such store, or if only the slide itself can show whether it is current.
    """
    if object_path(path) is None or options.overwrite or not (final / METADATA).is_file():
        return None
    store, opening = SlideStore(final, final.name, open_multiscale(final)), options.opening
    there, known = store.image.slide_mpp, store.info
    # Scene and ICC profile are in the slide, so take those of the store; compared below.
    requested = replace(_requested_info(path, options), scene=known.scene, icc=known.icc)
    same = requested.settings(there if mpp is None else mpp) == known.settings(there)
    same = same and opening.scene in (None, str(known.scene))
    same = same and opening.icc == (known.icc is not None)
    if not same or (mpp is None and known.mpp_source == "option"):
        return None
    return TiledSlide.of(store, source_bytes(path), skipped=True)


def _requested_info(path: Path, options: TileOptions) -> StoreInfo:
    """Create the metadata of a store that follow from the file and the options alone."""
    shown = options.opening.window
    return StoreInfo(
        source=SourceInfo(source_name(path), source_bytes(path), source_digest(path)),
        codec=str(options.codec),
        window=None if shown is None else (shown.low, shown.high),
        inside=None if options.inside is None else options.inside.description,
    )


def named_again(
    path: Path, out: Path, name: str, options: TileOptions, mpp: float | None
) -> TiledSlide | None:
    """Rename the sealed store of a remote slide, if an earlier run was killed before it did.

    None if there is no such store.
    """
    partial, final = out / PARTIAL / name, out / name
    if (
        not (partial / DIGESTS).is_file()
        or (found := tiled_before(path, partial, options, mpp)) is None
    ):
        return None
    (partial / JOURNAL).unlink(missing_ok=True)
    rename(partial, final)
    return replace(found, skipped=False)


def _checksums(unit: Unit) -> list[int | None]:
    columns = -(-unit.array.extent.width // unit.array.shard.width)
    paths = [unit.array.shard_path(unit.row, column) for column in range(columns)]
    return [shard_checksum(path) for path in paths]
