"""Owns the memory plan: what each part of a run will hold, and how large parts may be."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import psutil

from wsi_seg.errors import ConfigError
from wsi_seg.infer.plan import SlidePlan
from wsi_seg.models import ModelCard
from wsi_seg.models.footprint import footprint

# Rows that a strip may have: whole chunks of the output, fewest first.
_STRIP_ROWS = (512, 1024)

# Batches that are read ahead, fewest first.
_AHEAD = (1, 2)

# Bytes of decoded chunks that are kept: at least, and at most without --max-ram.
_CACHE = (2**25, 2**30)

# Rows of chunks above and below the windows being read.
_CHUNK_ROWS = 1024

# Strips of the output that exist at a time: one being filled, one waiting, one being written with
# its label map and its encoded chunks.
_STRIPS = 5

# Arrays of a few rows that are summed, divided or encoded at a time.
_SMALL = 2**26

# Share that memory allocators waste.
_WASTE = 0.1

# Share of a GPU's free memory that is planned with; libraries try out kernels in the rest.
_DEVICE_SHARE = 0.7

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
        Batches that are read while one is predicted.
    strip_px
        Rows of a strip.
    resident
        Members in memory at a time.
    cache
        Bytes of decoded chunks that are kept.
    process
        What the process held before any work.
    networks, forward, bands
        Weights, one forward pass, and rows being summed; in the memory of the device.
    strips, reading
        Finished rows on their way to the disk, and windows read ahead.
    on_device
        Whether ``networks``, ``forward`` and ``bands`` lie in a GPU's own memory.
    limit
        What the user allowed, in bytes; None is no limit.
    """

    batches: tuple[int, ...]
    ahead: int
    strip_px: int
    resident: int
    cache: int
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
        """Bytes of what lies with the network."""
        return self.networks + self.forward + self.bands

    @property
    def total(self) -> int:
        """Bytes of main memory."""
        work = self.strips + self.reading + self.cache + (0 if self.on_device else self.device)
        return self.process + math.ceil((work + _SMALL) * (1 + _WASTE))

    def lines(self) -> list[str]:
        """Plan as sentences for people."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / _MB:.0f}"
            for name in ("process", "networks", "forward", "bands", "strips", "reading", "cache")
        )
        limit = "" if self.limit is None else f" of {self.limit / _MB:.0f} MB allowed"
        batch = "/".join(str(batch) for batch in dict.fromkeys(self.batches))
        where = ", the networks' part on the GPU" if self.on_device else ""
        sizes = f"batch {batch}, {self.ahead} read ahead, strips of {self.strip_px} rows, "
        return [
            f"memory: at most {self.total / _MB:.0f} MB{limit}{where}",
            f"  in MB: {parts}",
            f"  {sizes}{self.resident} networks in memory",
        ]

    def to_json(self) -> dict[str, object]:
        """Plan as plain JSON values."""
        return asdict(self) | {"total": self.total}


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``4GB``, ``800 MB`` or ``2e9``; units are powers of 1,000.

    Raises
    ------
    ConfigError
        If it is no size.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e\d+)?)\s*([KMGT]?)I?B?\s*", text, re.IGNORECASE)
    try:
        number = float(found[1]) if found else math.nan
    except ValueError:
        number = math.nan
    if found is None or not 0 < number < math.inf:
        raise ConfigError(f"got memory {text!r}; expected a size such as 4GB or 800MB")
    return int(number * _UNITS[found[2].upper()])


def plan_memory(
    plans: Sequence[Sequence[SlidePlan]],
    cards: Sequence[ModelCard],
    batches: Sequence[int],
    *,
    fixed_batch: bool,
    bf16: bool,
    device_memory: int | None,
    max_ram: int | None,
    strip_px: int | None = None,
) -> MemoryPlan:
    """Choose the largest parts that fit.

    Parameters
    ----------
    plans
        Of each slide, the plan of each member.
    cards
        Of each member.
    batches
        Tiles per forward pass of each member: at most, or exactly.
    fixed_batch
        Whether the batches are the user's own.
    bf16
        Whether networks compute in half the bytes.
    device_memory
        Bytes that are free in a GPU's own memory; None where networks share the main memory.
    max_ram
        Bytes of main memory allowed; None takes what runs fastest.
    strip_px
        Rows of a strip; None chooses.

    Raises
    ------
    ConfigError
        If even the smallest parts do not fit; says what would.
    """
    needs = _Needs(plans, cards, bf16=bf16, on_device=device_memory is not None)
    own = tuple(batches)
    small = own if fixed_batch else (1,) * len(own)
    plan = needs.measured(small, _AHEAD[0], strip_px or _STRIP_ROWS[0], 1, _CACHE[0])
    plan = replace(plan, limit=max_ram)
    if max_ram is not None and plan.total > max_ram:
        raise ConfigError(
            f"got --max-ram of {max_ram / _MB:.0f} MB; this model and these slides need at least "
            f"{math.ceil(plan.total / _MB)} MB{'' if fixed_batch else ', whatever the batch'}"
        )
    cache = min(max(needs.cache, _CACHE[0]), _CACHE[1])
    steps: list[dict[str, int | tuple[int, ...]]] = [{"resident": len(cards)}]
    steps += [{"batches": tuple(min(b, most) for b in own)} for most in _up_to(max(own))]
    steps += [{"cache": part} for part in range(2 * _CACHE[0], cache, _CACHE[0])]
    steps += [{"cache": cache}, {"strip_px": strip_px or _STRIP_ROWS[1]}, {"ahead": _AHEAD[1]}]
    for step in steps:
        if fixed_batch and "batches" in step:
            continue
        larger = needs.measured_like(plan, step)
        roomy = device_memory is None or larger.device <= _DEVICE_SHARE * device_memory
        if roomy and (max_ram is None or larger.total <= max_ram):
            plan = larger
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
        cards: Sequence[ModelCard],
        *,
        bf16: bool,
        on_device: bool,
    ) -> None:
        self._members = list(zip(*plans, strict=True))
        self._cards = cards
        self._value = 2 if bf16 else 4
        self._prints = [footprint(card.spec) for card in cards]
        self._on_device = on_device
        self._process = resident_bytes()
        self._width = max(max(p.extent.width, p.tile_px) for slide in plans for p in slide)
        self._classes = len(cards[0].classes)

    @property
    def cache(self) -> int:
        """Bytes of the chunks under two rows of windows, so that each is decoded once."""
        return max(
            int(_source_width(plan) * (_source_px(plan) + _CHUNK_ROWS) * channels)
            for member, channels in zip(self._members, self._channels(), strict=True)
            for plan in member
        )

    def measured_like(
        self, plan: MemoryPlan, changes: dict[str, int | tuple[int, ...]]
    ) -> MemoryPlan:
        chosen = replace(plan, **changes)  # type: ignore[arg-type]
        found = self.measured(
            chosen.batches, chosen.ahead, chosen.strip_px, chosen.resident, chosen.cache
        )
        return replace(found, limit=plan.limit)

    def measured(
        self, batches: tuple[int, ...], ahead: int, strip_px: int, resident: int, cache: int
    ) -> MemoryPlan:
        weights = sorted((p.parameters for p in self._prints), reverse=True)
        # A copy that computes and one to compare it with; two more while one is loaded.
        copies = self._value + 4
        tiles = [max(plan.tile_px for plan in member) ** 2 for member in self._members]
        parts = zip(batches, tiles, self._prints, self._channels(), strict=True)
        values = [
            batch * px * (print_.values_per_px * self._value + 8 * channels + 8 * self._classes)
            for batch, px, print_, channels in parts
        ]
        rows = strip_px * self._width * self._classes
        windows = sum(
            batch * px * channels * (ahead + 3)
            for batch, px, channels in zip(batches, tiles, self._channels(), strict=True)
        )
        sources = max(9 * _source_px(plan) ** 2 for member in self._members for plan in member)
        return MemoryPlan(
            batches=batches,
            ahead=ahead,
            strip_px=strip_px,
            resident=resident,
            cache=cache,
            process=self._process,
            networks=sum(weights[:resident]) * copies + weights[0] * 8,
            forward=int(max(values)),
            bands=sum(self._band(member) for member in self._members),
            strips=rows * (_STRIPS + (2 * len(batches) if len(batches) > 1 else 0)),
            reading=int(windows + sources * 2),
            on_device=self._on_device,
        )

    def _band(self, member: Sequence[SlidePlan]) -> int:
        return max(p.tile_px * max(p.extent.width, p.tile_px) for p in member) * self._classes * 4

    def _channels(self) -> list[int]:
        return [card.in_channels for card in self._cards]


def _source_px(plan: SlidePlan) -> float:
    """Side of a window in px of the level that is read."""
    return plan.tile_px * plan.reduction


def _source_width(plan: SlidePlan) -> float:
    """Width of the level that is read."""
    return plan.extent.width * plan.reduction
