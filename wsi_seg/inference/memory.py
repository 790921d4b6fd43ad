"""Owns the memory plan: what each part of a run will hold, and how large parts may be."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from wsi_seg.cores import default_readers
from wsi_seg.errors import ConfigError
from wsi_seg.inference.plan import UNIT_ROWS, SlidePlan
from wsi_seg.inference.stream import Sizes
from wsi_seg.models import ModelCard
from wsi_seg.predict.device import Device, dtype_of
from wsi_seg.predict.ensemble import Member

# Rows that a strip may have: whole chunks of the output, fewest first.
_STRIP_ROWS = (512, 1024)

# Rows of tiles that are read ahead of the current one, fewest first; the last for a GPU only, whose
# tiles go faster than a burst of slow reads.
_AHEAD = (1, 2, 4)

# Bytes of decoded chunks that are kept: at least, and at most without --max-ram.
_CACHE = (2**25, 2**30)

# Strips that are coming down or waiting to be written, on a CPU and on a GPU; others are summed,
# widened, halved and encoded meanwhile, each at most once at a time.
_WAITING, _WAITING_GPU, _WRITING = 1, 2, 4

# Arrays of a few rows that are summed, divided or encoded at a time.
_SMALL = 2**26

# Libraries of a GPU, which load their kernels into main memory when they are first used; measured.
_GPU_LIBRARIES = 1_250 * 10**6

# Share that memory allocators waste.
_WASTE = 0.1

# Pinned memory is rounded up to powers of two.
_PINNED = 2

# Share of a GPU's free memory that is planned with; libraries try out kernels in the rest.
_DEVICE_SHARE = 0.7

# Share of the memory that a container or dask allows a process which a plan may use; dask gives a
# worker that uses 0.8 of it no more work.
LIMIT_SHARE = 0.75

_MB = 10**6
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Sizes that were chosen, and the bytes that each part takes at most.

    Parameters
    ----------
    batches
        Tiles per forward pass of each member.
    ahead
        Bytes of source pixels that are read or waiting at a time, of each member.
    waiting
        Bytes of finished strips that are coming down or waiting to be written.
    strip_px
        Rows of a strip.
    resident
        Members in memory at a time.
    cache
        Bytes of decoded chunks that are kept.
    readers
        Reads at a time.
    process
        What the process held before any work, and what libraries of a GPU will.
    networks, forward, bands
        Weights, one forward pass, and rows of source pixels and sums; in the memory of the device.
    strips, reading
        Finished rows on their way to the disk, and source pixels on their way to the device; on
        CUDA both are pinned.
    on_device
        Whether ``networks``, ``forward`` and ``bands`` are in a GPU's own memory.
    limit
        What the user allowed, in bytes; None is no limit.
    """

    batches: tuple[int, ...]
    ahead: int
    waiting: int
    strip_px: int
    resident: int
    cache: int
    readers: int
    process: int
    networks: int
    forward: int
    bands: int
    strips: int
    reading: int
    on_device: bool
    limit: int | None = None

    @property
    def device(self) -> int:
        """Bytes of what is where the network is."""
        return self.networks + self.forward + self.bands

    @property
    def total(self) -> int:
        """Bytes of main memory."""
        work = self.strips + self.reading + self.cache + (0 if self.on_device else self.device)
        return self.process + math.ceil((work + _SMALL) * (1 + _WASTE))

    def sizes(self, member: int) -> Sizes:
        """How much of each thing the stream of a member may hold."""
        return Sizes(self.batches[member], self.ahead, self.waiting, self.readers)

    def lines(self) -> list[str]:
        """Plan as sentences for people."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / _MB:.0f}"
            for name in ("process", "networks", "forward", "bands", "strips", "reading", "cache")
        )
        limit = "" if self.limit is None else f" of {self.limit / _MB:.0f} MB allowed"
        batch = "/".join(str(batch) for batch in dict.fromkeys(self.batches))
        where = ", the networks' part on the GPU" if self.on_device else ""
        sizes = f"batch {batch}, {self.ahead / _MB:.0f} MB read ahead by {self.readers} readers, "
        sizes += f"strips of {self.strip_px} rows, {self.resident} networks in memory"
        return [
            f"memory: at most {self.total / _MB:.0f} MB{limit}{where}",
            f"  in MB: {parts}",
            f"  {sizes}",
        ]

    def to_json(self) -> dict[str, object]:
        """Plan as plain JSON values."""
        return asdict(self) | {"total": self.total}


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``4GB``, ``800 MB`` or ``2e9``; units are powers of 1,000.

    Raises
    ------
    ConfigError
        If it is not a size.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e\d+)?)\s*([KMGT]?)I?B?\s*", text, re.IGNORECASE)
    try:
        number = float(found[1]) if found else math.nan
    except ValueError:
        number = math.nan
    if found is None or not 0 < number < math.inf:
        raise ConfigError(f"got memory {text!r}; expected a size such as 4GB or 800MB")
    return int(number * _UNITS[found[2].upper()])


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the plan may choose, smallest first."""

    batches: tuple[int, ...]
    rows_ahead: int
    strip_px: int
    resident: int
    cache: int


def plan_memory(
    plans: Sequence[Sequence[SlidePlan]],
    members: Sequence[Member],
    batches: Sequence[int],
    *,
    fixed_batch: bool,
    device: Device,
    max_ram: int | None,
    strip_px: int | None = None,
    readers: int = 0,
) -> MemoryPlan:
    """Choose the largest parts that fit.

    Parameters
    ----------
    plans
        Of each slide, the plan of each member.
    members
        Of the model; networks in memory are run once, to find out what they take.
    batches
        Tiles per forward pass of each member: at most, or exactly.
    fixed_batch
        Whether the batches are exactly these.
    device
        Where and how networks compute, and what is free there.
    max_ram
        Bytes of main memory allowed; None takes what runs fastest.
    strip_px
        Rows of a strip; None chooses.
    readers
        Reads at a time; 0 chooses.

    Raises
    ------
    ConfigError
        If even the smallest parts do not fit; says what would.
    """
    needs = _Needs(plans, members, device, readers)
    own = tuple(batches)
    chosen = _Choice(
        batches=own if fixed_batch else (1,) * len(own),
        rows_ahead=_AHEAD[0],
        strip_px=strip_px or _STRIP_ROWS[0],
        resident=1,
        cache=_CACHE[0],
    )
    plan = replace(needs.measured(chosen), limit=max_ram)
    if max_ram is not None and plan.total > max_ram:
        raise ConfigError(
            f"got {max_ram / _MB:.0f} MB of memory for each process, by --max-ram or the limit "
            "of its container or worker; this model and these slides need at least "
            f"{math.ceil(plan.total / _MB)} MB"
            f"{'' if fixed_batch else ', whatever the batch'}"
        )
    for larger in needs.steps(chosen, own, fixed_batch=fixed_batch, strip_px=strip_px):
        candidate = replace(chosen, **larger)
        found = replace(needs.measured(candidate), limit=max_ram)
        roomy = device.memory is None or found.device <= _DEVICE_SHARE * device.memory
        if roomy and (max_ram is None or found.total <= max_ram):
            chosen, plan = candidate, found
    return plan


def resident_bytes() -> int:
    """Memory that this process holds now, in bytes."""
    return int(psutil.Process().memory_info().rss)


def _up_to(largest: int) -> list[int]:
    """Powers of two below a number, and the number."""
    return [2**k for k in range(1, largest.bit_length()) if 2**k < largest] + [largest]


class _Needs:
    """Bytes of every part, by the sizes that may be chosen."""

    def __init__(
        self,
        plans: Sequence[Sequence[SlidePlan]],
        members: Sequence[Member],
        device: Device,
        readers: int,
    ) -> None:
        self._members: list[Sequence[SlidePlan]] = list(zip(*plans, strict=True))
        cards = [member.card for member in members]
        self._cards, self._value = cards, dtype_of(device.precision).itemsize
        self._estimates = [
            member.memory(max(plan.tile_px for plan in slides))
            for member, slides in zip(members, self._members, strict=True)
        ]
        self._on_device = device.memory is not None
        self._process = resident_bytes() + (_GPU_LIBRARIES if self._on_device else 0)
        self._readers = readers or default_readers()
        self._width = max(max(p.extent.width, p.tile_px) for slide in plans for p in slide)
        self._classes = len(cards[0].classes)
        self._planes = cards[0].classes.planes or 1

    def steps(
        self,
        smallest: _Choice,
        batches: tuple[int, ...],
        *,
        fixed_batch: bool,
        strip_px: int | None,
    ) -> list[dict[str, Any]]:
        """List what is enlarged, most useful first; each where it fits with what came before."""
        cache = max(map(self._chunk_row, *self._pairs()))
        cache = min(max(cache, smallest.cache), _CACHE[1])
        found: list[dict[str, Any]] = [{"resident": len(self._cards)}]
        if not fixed_batch:
            found += [
                {"batches": tuple(min(batch, most) for batch in batches)}
                for most in _up_to(max(batches))
            ]
        found += [{"rows_ahead": _AHEAD[1]}]
        found += [{"cache": part} for part in range(2 * _CACHE[0], cache, _CACHE[0])]
        found += [{"cache": cache}, {"strip_px": strip_px or _STRIP_ROWS[1]}]
        return [*found, {"rows_ahead": _AHEAD[2]}] if self._on_device else found

    def measured(self, choice: _Choice) -> MemoryPlan:
        weights = sorted((size.parameters for size in self._estimates), reverse=True)
        # A copy that computes and one to compare it with; two more while one is loaded.
        copies = self._value + 4
        forward = reading = ahead = 0
        for batch, member, card, size in zip(
            choice.batches, self._members, self._cards, self._estimates, strict=True
        ):
            px = batch * size.padded(max(plan.tile_px for plan in member)) ** 2
            values = size.values_per_px * self._value
            forward = max(
                forward, int(px * (values + 9 * card.in_channels + 12 * card.classes.outputs))
            )
            most = max(self._ahead(plan, card, batch, choice.rows_ahead) for plan in member)
            ahead, reading = max(ahead, most), reading + most + self._unit(member, card)
        strip = choice.strip_px * self._width * (self._classes + self._planes)
        # The strips of each member wait to be combined.
        members = len(choice.batches) if len(choice.batches) > 1 else 0
        waiting = (_WAITING_GPU if self._on_device else _WAITING) * strip * (1 + members)
        pinned = _PINNED if self._on_device else 1
        return MemoryPlan(
            batches=choice.batches,
            ahead=ahead,
            waiting=waiting,
            strip_px=choice.strip_px,
            resident=choice.resident,
            cache=choice.cache,
            readers=self._readers,
            process=self._process,
            networks=sum(weights[: choice.resident]) * copies + weights[0] * 8,
            forward=forward,
            bands=sum(map(self._band, *self._pairs())) + self._launched(choice, ahead),
            strips=pinned * (waiting + strip * (1 + members)) + _WRITING * strip,
            reading=pinned * reading,
            on_device=self._on_device,
        )

    def _pairs(self) -> tuple[list[Sequence[SlidePlan]], Sequence[ModelCard]]:
        return self._members, self._cards

    def _chunk_row(self, member: Sequence[SlidePlan], card: ModelCard) -> int:
        """Bytes of a row of chunks that is read in portions, so that each is decoded once."""
        high = [plan for plan in member if plan.chunk.height > UNIT_ROWS]
        return max((plan.source.width * plan.chunk.height for plan in high), default=0) * (
            card.in_channels
        )

    def _unit(self, member: Sequence[SlidePlan], card: ModelCard) -> int:
        return max(plan.unit_px * _source_px(plan) for plan in member) * card.in_channels

    def _ahead(self, plan: SlidePlan, card: ModelCard, batch: int, rows: int) -> int:
        """Bytes that are read ahead: rows of tiles, or two batches of slides of one tile."""
        side = plan.tile_px * plan.reduction
        row = min(side, plan.source.height) * _source_px(plan)
        fewest = 2 * plan.unit_px * _source_px(plan)
        wanted = max(rows * row, min(2 * batch * side**2, 2**26), fewest)
        return int(wanted) * card.in_channels

    def _band(self, member: Sequence[SlidePlan], card: ModelCard) -> int:
        """Rows of source pixels and of sums of one member, with what is resampled at a time."""
        found = 0
        for plan in member:
            width = _span_px(plan)
            rows = plan.tile_px + plan.unit_px
            source = rows * width * card.in_channels
            if plan.resampled:
                source += 2 * plan.unit_px * _source_px(plan) * card.in_channels
            found = max(found, source + 4 * plan.tile_px * width * self._classes)
        return found

    def _launched(self, choice: _Choice, ahead: int) -> int:
        """Bytes on a GPU of rows that were uploaded before what needs them is computed."""
        return ahead + _WAITING_GPU * choice.strip_px * self._width * 4 if self._on_device else 0


def _span_px(plan: SlidePlan) -> int:
    """Columns that tiles to predict cover, with the pixel on either side that is summed too."""
    return len(plan.columns_for(range(len(plan.ys)))) + 2


def _source_px(plan: SlidePlan) -> int:
    """Columns of the level under these tiles, which alone are read."""
    return min(plan.source.width, math.ceil(_span_px(plan) * plan.reduction) + 2)
