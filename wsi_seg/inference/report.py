"""Owns the report of a run, as text and as JSON."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from wsi_seg.batch import require_none
from wsi_seg.counts import counted
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.plan import Quarantined
from wsi_seg.inference.waits import describe_shares
from wsi_seg.notebook import lines_html

_SAVED = {
    "both": "probabilities and labels",
    "probabilities": "probabilities",
    "labels": "labels only (--save both keeps probabilities too)",
}

# Share of pixels with another class above which scores can change in their third digit.
_MANY = 0.001


@dataclass(frozen=True, slots=True)
class SlideResult:
    """Result of one slide.

    ``tiles`` were predicted, ``skipped`` have no tissue, and ``skipped_by_first_pass`` were not
    predicted again with adaptive overlap. ``seam_score`` is explained in `inference.seams`;
    ``seam_score_first`` is that of the pass without overlap. ``height`` and ``width`` are in pixels
    of the output, ``mpp`` is micrometres per pixel of it, None if unknown.
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
    """Describe how reduced precision changed the first tile, and whether the change is large.

    Parameters
    ----------
    precision
        Precision of the network.
    labels, values
        Shares of pixels with another class, and with another probability, see `PrecisionDrift`.

    Examples
    --------
    >>> speed_costs("bf16", 0.0001, 0.2).endswith(": a small change")
    True
    """
    verdict = "a small change"
    if labels > _MANY:
        verdict = "a large change; compare the scores with those of --precision fp32"
    return (
        f"speed ({precision}) changed the class of {labels:.2%} of the first tile's pixels, and "
        f"the probability of {values:.0%} by 1/255 or more: {verdict}"
    )


@dataclass(frozen=True, slots=True)
class InferReport:
    """Result of one run.

    ``slides`` were predicted, ``failures`` maps the names of others to reasons, and ``elsewhere``
    is the number of slides left to other processes. ``tiles`` is the number of tiles predicted in
    this run, ``pixels`` their output area, and ``seconds`` the time from the first read to the last
    write. ``start_seconds`` is the time before, which includes ``compile_seconds``. ``shares`` are
    the shares of time in which the device of this process computed, or waited for reading and
    writing; empty if other processes did the work. ``peak_memory`` is that of the process in bytes.
    ``label_change`` and ``value_change`` are the shares of pixels of the first tile whose label, or
    value, differs from that of the uncompiled network in float32. ``saved`` is what was written,
    ``device`` and ``precision`` where and how the networks ran, ``memory`` the memory plan.
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
        """Tiles per forward pass, the largest of all members."""
        return max(self.memory.batches)

    @property
    def tiles_per_second(self) -> float:
        """Tiles predicted per second, reading and writing included."""
        return self.tiles / self.seconds if self.seconds > 0 else 0.0

    @property
    def mpx_per_second(self) -> float:
        """Output pixels predicted per second, in millions, reading and writing included."""
        return self.pixels / 1e6 / self.seconds if self.seconds > 0 else 0.0

    def after(self, first: "InferReport") -> "InferReport":
        """Return the report of both passes of adaptive overlap, of which ``first`` came before."""
        return replace(self, tiles=self.tiles + first.tiles, seconds=self.seconds + first.seconds)

    def lines(self) -> list[str]:
        """Format the report as lines of text."""
        if not (self.slides or self.tiles or self.failures):
            return ["nothing was left to predict here", *self._elsewhere()]
        skipped = sum(slide.skipped for slide in self.slides)
        slides = counted(len(self.slides), "slide")
        rate = f"{counted(self.tiles, 'tile')} in {self.seconds:.1f} s "
        rate += f"({self.tiles_per_second:.1f} tiles/s, {self.mpx_per_second:.1f} Mpx/s)"
        memory = f"peak memory {self.peak_memory / 1e9:.2f} GB"
        memory += f" (planned: at most {self.memory.total / 1e9:.2f})"
        busy = f"{describe_shares(self.shares)} of the time, " if self.shares else ""
        compiled = f", {self.compile_seconds:.1f} s of it compiling" if self.compile_seconds else ""
        lines = [
            f"{slides}, {rate}, {counted(skipped, 'background tile')} skipped",
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
                tiles = counted(len(slide.quarantined), "tile")
                lines.append(f"{slide.slide}: {tiles} unreadable, left at 0")
        return lines

    def _repr_html_(self) -> str:
        return lines_html(self.lines())

    def _elsewhere(self) -> list[str]:
        """Return a line with the number of slides left to other processes, if there are any."""
        if not self.elsewhere:
            return []
        return [f"{counted(self.elsewhere, 'slide')} left to other processes: see wsi-seg status"]

    def _adaptive(self) -> list[str]:
        """Return a line with the number of tiles that adaptive overlap skipped, if it was used."""
        skipped = sum(slide.skipped_by_first_pass for slide in self.slides)
        before = [s.seam_score_first for s in self.slides if s.seam_score_first is not None]
        if not skipped and not before:
            return []
        every = skipped + sum(slide.tiles for slide in self.slides)
        share = f"{skipped} of {counted(every, 'tile')} ({skipped / every:.0%})"
        seams = f"; seam score without overlap {statistics.mean(before):.2f}" if before else ""
        return [f"adaptive overlap skipped {share}{seams}"]

    def require_whole(self) -> None:
        """Raise `BatchError` if slides, or tiles of slides, failed; others are predicted."""
        incomplete = {
            slide.slide: f"predicted except {counted(len(slide.quarantined), 'tile')}, left at 0; "
            f"the first, y={slide.quarantined[0][0]} x={slide.quarantined[0][1]}: "
            f"{slide.quarantined[0][2]}"
            for slide in self.slides
            if slide.quarantined
        }
        require_none({**self.failures, **incomplete}, done=len(self.slides) - len(incomplete))

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        rates = {"tiles_per_second": self.tiles_per_second, "mpx_per_second": self.mpx_per_second}
        more = {"memory": self.memory.to_json(), "batch": self.batch, "device_use": self.device_use}
        return asdict(self) | more | rates
