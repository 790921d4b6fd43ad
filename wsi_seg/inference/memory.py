"""Owns the memory plan: estimates the memory of each part of a run, and chooses sizes that fit."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from wsi_seg.cores import default_readers
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.inference.plan import UNIT_ROWS, SlidePlan
from wsi_seg.inference.stream import Sizes
from wsi_seg.models import ModelCard
from wsi_seg.predict.device import Device, dtype_of
from wsi_seg.predict.ensemble import Member

# Candidate strip heights, multiples of the output's chunks.
_STRIP_ROWS = (512, 1024)

# Candidate rows of tiles to read ahead; the last only for a GPU, to bridge bursts of slow reads.
_AHEAD = (1, 2, 4)

# Smallest and largest cache of decoded chunks, in bytes.
_CACHE = (2**25, 2**30)

# Strips that are being downloaded or wait to be written, on a CPU and on a GPU; and strips that are
# meanwhile summed, widened, halved and encoded, one in each of these steps.
_WAITING, _WAITING_GPU, _WRITING = 1, 2, 4

# Temporary arrays of a few rows.
_TEMPORARY = 2**26

# Main memory of the CUDA libraries once their kernels are loaded (measured).
_GPU_LIBRARIES = 1_250 * 10**6

# Overhead of memory allocators.
_OVERHEAD = 0.1

# torch rounds pinned memory up to powers of two.
_PINNED = 2

# Share of a GPU's free memory to use; libraries benchmark kernels in the rest.
_DEVICE_SHARE = 0.7

# Share of the memory limit of a container or dask worker to use; dask pauses workers at 0.8.
LIMIT_SHARE = 0.75

_MB = 10**6
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Chosen sizes, and upper bounds in bytes for the memory of each part.

    Parameters
    ----------
    batches
        Tiles per forward pass of each member.
    ahead
        Bytes of source pixels that are read ahead or wait, for each member.
    waiting
        Bytes of finished strips that are being downloaded or wait to be written.
    sending
        Bytes of encoded strips that are on their way to an object store; 0 for a folder.
    strip_px
        Rows of a strip.
    resident
        Number of members in memory at a time.
    cache
        Size of the cache of decoded chunks in bytes.
    readers
        Number of concurrent reads.
    process
        Memory of the process before it starts to work, and of the CUDA libraries.
    networks, forward, bands
        Weights, one forward pass, and ring buffers of source rows and sums, on the device.
    strips, reading
        Buffers of finished rows and of source pixels; pinned with CUDA.
    on_device
        Whether ``networks``, ``forward`` and ``bands`` are in a GPU's own memory.
    limit
        Limit for main memory in bytes, set by the user or derived from the limit of the container
        or dask worker; None for no limit.
    """

    batches: tuple[int, ...]
    ahead: int
    waiting: int
    sending: int
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
        """Bytes of memory on the device."""
        return self.networks + self.forward + self.bands

    @property
    def total(self) -> int:
        """Bytes of main memory."""
        work = self.strips + self.reading + self.cache + (0 if self.on_device else self.device)
        return self.process + math.ceil((work + _TEMPORARY) * (1 + _OVERHEAD))

    def sizes(self, member: int) -> Sizes:
        """Return the batch size and buffer limits of a member's stream."""
        return Sizes(self.batches[member], self.ahead, self.waiting, self.readers)

    def lines(self) -> list[str]:
        """Format the plan as lines of text."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / _MB:.0f}"
            for name in ("process", "networks", "forward", "bands", "strips", "reading", "cache")
        )
        limit = "" if self.limit is None else f" of {self.limit / _MB:.0f} MB allowed"
        batch = "/".join(str(batch) for batch in dict.fromkeys(self.batches))
        where = ", the networks' part on the GPU" if self.on_device else ""
        sizes = f"batch {batch}, {self.ahead / _MB:.0f} MB read ahead by "
        sizes += f"{counted(self.readers, 'reader')}, "
        sizes += f"strips of {self.strip_px} rows, {counted(self.resident, 'network')} in memory"
        return [
            f"memory: at most {self.total / _MB:.0f} MB{limit}{where}",
            f"  in MB: {parts}",
            f"  {sizes}",
        ]

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON values."""
        return asdict(self) | {"total": self.total}


def parse_bytes(text: str) -> int:
    """Parse a size such as ``4GB``, ``800 MB`` or ``2e9`` to bytes; units are powers of 1,000.

    Raises
    ------
    ConfigError
        If the text is not a size.
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
    """Sizes that the plan chooses."""

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
    sends: bool = False,
) -> MemoryPlan:
    """Choose the largest sizes that fit into memory.

    Parameters
    ----------
    plans
        For each slide, the plans of all members.
    members
        Members of the model; networks in memory are run once to measure their memory.
    batches
        Largest number of tiles per forward pass of each member.
    fixed_batch
        Whether to use exactly ``batches``.
    device
        Device of the networks, with its free memory and precision.
    max_ram
        Limit for main memory in bytes, set by the user or derived from the limit of the container
        or dask worker; None for no limit, which chooses the fastest sizes.
    strip_px
        Rows of a strip; None to choose.
    sends
        Whether strips are sent to an object store.

    Raises
    ------
    ConfigError
        If even the smallest sizes do not fit; states how much memory is needed.
    """
    needs = _Needs(plans, members, device, sends=sends)
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
    """Return the resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


def _up_to(largest: int) -> list[int]:
    """Return the powers of two from 2 that are less than a number, and the number itself."""
    return [2**k for k in range(1, largest.bit_length()) if 2**k < largest] + [largest]


class _Needs:
    """Estimates the bytes of every part for given sizes."""

    def __init__(
        self,
        plans: Sequence[Sequence[SlidePlan]],
        members: Sequence[Member],
        device: Device,
        *,
        sends: bool,
    ) -> None:
        self._sends = sends
        self._members: list[Sequence[SlidePlan]] = list(zip(*plans, strict=True))
        cards = [member.card for member in members]
        self._cards, self._value = cards, dtype_of(device.precision).itemsize
        self._estimates = [
            member.memory(max(plan.tile_px for plan in slides))
            for member, slides in zip(members, self._members, strict=True)
        ]
        self._on_device = device.memory is not None
        self._process = resident_bytes() + (_GPU_LIBRARIES if self._on_device else 0)
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
        """List sizes to enlarge, most useful first; each is kept if it fits with those before."""
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
        # One copy to predict and a float32 copy to compare with; two more while one is loaded.
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
        # Strips of each member wait to be combined.
        members = len(choice.batches) if len(choice.batches) > 1 else 0
        waiting = (_WAITING_GPU if self._on_device else _WAITING) * strip * (1 + members)
        # Those of several strips in practice, which are smaller when encoded.
        sending = strip if self._sends else 0
        pinned = _PINNED if self._on_device else 1
        return MemoryPlan(
            batches=choice.batches,
            ahead=ahead,
            waiting=waiting,
            sending=sending,
            strip_px=choice.strip_px,
            resident=choice.resident,
            cache=choice.cache,
            readers=default_readers(),
            process=self._process,
            networks=sum(weights[: choice.resident]) * copies + weights[0] * 8,
            forward=forward,
            bands=sum(map(self._band, *self._pairs())) + self._launched(choice, ahead),
            strips=pinned * (waiting + strip * (1 + members)) + _WRITING * strip + sending,
            reading=pinned * reading,
            on_device=self._on_device,
        )

    def _pairs(self) -> tuple[list[Sequence[SlidePlan]], Sequence[ModelCard]]:
        return self._members, self._cards

    def _chunk_row(self, member: Sequence[SlidePlan], card: ModelCard) -> int:
        """Return the bytes of a row of tall chunks, which a cache must hold to decode each once."""
        high = [plan for plan in member if plan.chunk.height > UNIT_ROWS]
        return max((plan.source.width * plan.chunk.height for plan in high), default=0) * (
            card.in_channels
        )

    def _unit(self, member: Sequence[SlidePlan], card: ModelCard) -> int:
        return max(plan.unit_px * _source_px(plan) for plan in member) * card.in_channels

    def _ahead(self, plan: SlidePlan, card: ModelCard, batch: int, rows: int) -> int:
        """Bytes to read ahead: rows of tiles, or two batches if slides have few tiles."""
        side = plan.tile_px * plan.reduction
        row = min(side, plan.source.height) * _source_px(plan)
        fewest = 2 * plan.unit_px * _source_px(plan)
        wanted = max(rows * row, min(2 * batch * side**2, 2**26), fewest)
        return int(wanted) * card.in_channels

    def _band(self, member: Sequence[SlidePlan], card: ModelCard) -> int:
        """Bytes of one member's ring buffers of source rows and sums, and of resampling."""
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
        """Bytes of rows uploaded to a GPU, and of strips on it, before queued batches have run."""
        return ahead + _WAITING_GPU * choice.strip_px * self._width * 4 if self._on_device else 0


def _span_px(plan: SlidePlan) -> int:
    """Columns that the tiles to predict cover, and one more on either side, which is summed too."""
    return len(plan.columns_for(range(len(plan.ys)))) + 2


def _source_px(plan: SlidePlan) -> int:
    """Columns of the level that are read for these tiles."""
    return min(plan.source.width, math.ceil(_span_px(plan) * plan.reduction) + 2)
