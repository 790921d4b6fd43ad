"""Growth of memory and time of inference with area, height, width, classes and overlap.

``python benchmarks/bench_scaling.py [--full] [--json]``. Slides are synthetic stores with almost
all chunks missing, and the network is one convolution. The first strips of each slide are predicted
in a separate process, whose memory is measured without its libraries. Growth with workers:
``python benchmarks/bench_infer.py --only workers``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import Ratio, Results

from wsi_seg.geometry import Extent
from wsi_seg.testing.stores import make_huge_store

SIDES = (4_096, 8_192, 16_384, 32_768, 65_536, 100_000)


@dataclass(frozen=True, slots=True)
class Case:
    """Size of one slide, and settings of its prediction."""

    axis: str
    value: float
    height: int = 8_192
    width: int = 8_192
    classes: int = 1
    overlap: float = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all sizes up to 100,000 px a side")
    parser.add_argument("--strips", type=int, default=1, help="strips to predict of each slide")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = Results()
    first: dict[str, dict[str, float]] = {}
    for case in cases(SIDES if options.full else (SIDES[0], SIDES[3]), full=options.full):
        with tempfile.TemporaryDirectory() as folder:
            found = run(case, Path(folder), options)
        of = f"{case.axis} {case.value:g}"
        results.figures[of] = (
            f"{found['peak_mb']:.0f} MB, {found['ms_per_tile']:.1f} ms a tile, "
            f"{found['tiles']:.0f} tiles, planned in {found['plan_s']:.2f} s"
        )
        least = first.setdefault(case.axis, found | {"value": case.value})
        if least["value"] != case.value:
            growth = f"from {case.axis} {least['value']:g} to {case.value:g}"
            for figure, name in (("peak_mb", "memory"), ("ms_per_tile", "time of a tile")):
                results.ratios[f"{name}, {growth}"] = Ratio.once(found[figure] / least[figure])
    results.show(as_json=options.json)


def cases(sides: tuple[int, ...], *, full: bool) -> Iterator[Case]:
    """Vary each axis separately, with the others at 8,192 px, one class and half overlap."""
    for side in sides:
        yield Case("area, px a side", side, height=side, width=side)
    for side in sides:
        yield Case("height", side, height=side)
    for side in sides if full else ():
        yield Case("width", side, width=side)
    for classes in (1, 4, 16) if full else (1, 4):
        yield Case("classes", classes, classes=classes)
    for overlap in (0, 0.25, 0.5, 0.75) if full else (0, 0.5):
        yield Case("overlap", overlap, overlap=overlap)


def run(case: Case, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Predict the first strips in a separate process."""
    make_huge_store(folder / "store.zarr", "slide", Extent(height=case.height, width=case.width))
    script = Path(__file__).parent / "scaling" / "strips.py"
    command = [sys.executable, script, folder / "store.zarr", folder / "pred.zarr"]
    command += ["--classes", case.classes, "--overlap", case.overlap, "--strips", options.strips]
    words = [str(word) for word in command]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
