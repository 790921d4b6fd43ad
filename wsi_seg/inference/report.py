"""Owns the figures of a run: what people read at its end, and the same as JSON."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from wsi_seg.batch import require_none
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.plan import Quarantined
from wsi_seg.inference.waits import describe_shares
from wsi_seg.notebook import lines_html

_SAVED = {
    "both": "probabilities and labels",
    "probabilities": "probabilities",
    "labels": "labels only (--save both keeps probabilities too)",
}

# Share of pixels of another class above which speed may cost more than the third digit of a score.
_MANY = 0.001


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What happened to one slide.

    ``tiles`` were predicted, ``skipped`` have no tissue, and ``skipped_by_first_pass`` did not need
    another prediction with adaptive overlap. ``seam_score`` is explained in `inference.seams`;
    ``seam_score_first`` is that of the pass without overlap.
    """

    slide: str
    height: int
    width: int
    mpp: float | None
    tiles: int
    skipped: int
    skipped_by_first_pass: int
    quarantined: tuple[Quarantined, ...]
    seam_score: float | None
    seam_score_first: float | None
    notes: tuple[str, ...]


def speed_costs(precision: str, labels: float, values: float) -> str:
    """Say what speed changed on the first tile, and whether that is much.

    Parameters
    ----------
    precision
        Arithmetic of the network.
    labels, values
        Shares of its pixels with another class, and with another probability, see `PrecisionDrift`.

    Examples
    --------
    >>> speed_costs("bf16", 0.0001, 0.2).endswith("that is little")
    True
    """
    verdict = "that is little"
    if labels > _MANY:
        verdict = "that is much; compare the scores with those of --precision fp32"
    return (
        f"speed ({precision}) changed the class of {labels:.2%} of the first tile's pixels, and "
        f"the probability of {values:.0%} by 1/255 or more: {verdict}"
    )


@dataclass(frozen=True, slots=True)
class InferReport:
    """Figures of one run.

    ``tiles`` counts the tiles predicted in this run and ``seconds`` the time from the first read
    to the last write; ``pixels`` is their output area. ``start_seconds`` went before, of them
    ``compile_seconds`` for compiling. ``shares`` are the shares of the time in which this process's
    device computed, and in which it waited for reading and writing; empty where other processes did
    the work. ``peak_memory`` is that of the whole process in bytes. ``label_change`` and
    ``value_change`` are the shares of pixels whose label, and whose value, differs from that of the
    network in float32 as it was trained, measured on the first tile. ``saved`` is what was written,
    ``device``, ``precision`` and ``memory`` what it ran on and was planned to take. ``slides`` were
    predicted, ``failures`` says why others were not; ``elsewhere`` counts those that other
    processes are at work on, or have not begun.
    """

    slides: tuple[SlideResult, ...]
    tiles: int
    pixels: int
    seconds: float
    start_seconds: float
    compile_seconds: float
    shares: dict[str, float]
    peak_memory: int
    device: str
    precision: str
    label_change: float
    value_change: float
    saved: str
    memory: MemoryPlan
    elsewhere: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def device_use(self) -> float:
        """Share of the time in which this process's device computed."""
        return self.shares.get("device", 0.0)

    @property
    def batch(self) -> int:
        """Tiles per forward pass; of several members the largest."""
        return max(self.memory.batches)

    @property
    def tiles_per_second(self) -> float:
        """Tiles predicted per second, reading and writing included."""
        return self.tiles / self.seconds if self.seconds > 0 else 0.0

    @property
    def mpx_per_second(self) -> float:
        """Output area predicted per second in Mpx."""
        return self.pixels / 1e6 / self.seconds if self.seconds > 0 else 0.0

    def after(self, first: "InferReport") -> "InferReport":
        """Figures of both passes, where this one went over what ``first`` left."""
        return replace(self, tiles=self.tiles + first.tiles, seconds=self.seconds + first.seconds)

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        if not (self.slides or self.tiles or self.failures):
            return ["nothing was left to predict here", *self._elsewhere()]
        skipped = sum(slide.skipped for slide in self.slides)
        rate = f"{self.tiles} tiles in {self.seconds:.1f} s ({self.tiles_per_second:.1f} tiles/s"
        rate += f", {self.mpx_per_second:.1f} Mpx/s)"
        memory = f"peak memory {self.peak_memory / 1e9:.2f} GB"
        memory += f" (planned: at most {self.memory.total / 1e9:.2f})"
        busy = f"{describe_shares(self.shares)} of the time, " if self.shares else ""
        compiled = f", {self.compile_seconds:.1f} s of it compiling" if self.compile_seconds else ""
        lines = [
            f"{len(self.slides)} slides, {rate}, {skipped} tiles of background left out",
            f"{self.device}, {self.precision}, batch {self.batch}, {memory}",
            f"{busy}{self.start_seconds:.1f} s to start{compiled}",
            f"saved {_SAVED[self.saved]}",
        ]
        if self.label_change or self.value_change:
            lines.append(speed_costs(self.precision, self.label_change, self.value_change))
        scores = [s.seam_score for s in self.slides if s.seam_score is not None]
        if scores:
            worst = max(scores)
            lines.append(
                f"seam score {statistics.mean(scores):.2f}, worst {worst:.2f} (1: no seams)"
            )
        lines += self._adaptive()
        lines += self._elsewhere()
        for slide in self.slides:
            lines += [f"{slide.slide}: {note}" for note in slide.notes]
            if slide.quarantined:
                lines.append(f"{slide.slide}: {len(slide.quarantined)} tiles unreadable, left at 0")
        return lines

    def _repr_html_(self) -> str:
        return lines_html(self.lines())

    def _elsewhere(self) -> list[str]:
        """Say how many slides other processes have; nothing where they have none."""
        if not self.elsewhere:
            return []
        return [f"{self.elsewhere} slides are left to other processes: see wsi-seg status"]

    def _adaptive(self) -> list[str]:
        """Say how many tiles adaptive overlap skipped; nothing without it."""
        skipped = sum(slide.skipped_by_first_pass for slide in self.slides)
        before = [s.seam_score_first for s in self.slides if s.seam_score_first is not None]
        if not skipped and not before:
            return []
        every = skipped + sum(slide.tiles for slide in self.slides)
        seams = f"; seam score without overlap {statistics.mean(before):.2f}" if before else ""
        return [
            f"adaptive overlap skipped {skipped} of {every} tiles ({skipped / every:.0%}){seams}"
        ]

    def require_whole(self) -> None:
        """Raise a `BatchError` if slides, or tiles of some, failed; the rest is predicted."""
        incomplete = {
            slide.slide: f"predicted except {len(slide.quarantined)} tiles, which are 0; the "
            f"first, y={slide.quarantined[0][0]} x={slide.quarantined[0][1]}: "
            f"{slide.quarantined[0][2]}"
            for slide in self.slides
            if slide.quarantined
        }
        require_none({**self.failures, **incomplete}, done=len(self.slides) - len(incomplete))

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        rates = {"tiles_per_second": self.tiles_per_second, "mpx_per_second": self.mpx_per_second}
        more = {"memory": self.memory.to_json(), "batch": self.batch, "device_use": self.device_use}
        return asdict(self) | more | rates
