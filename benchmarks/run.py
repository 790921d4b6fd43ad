"""Runs all benchmarks, and compares the results with the committed baseline and the goals.

``python benchmarks/run.py [--full] [--only NAME ...] [--out bench.json] [--save]``; ``--save``
makes the result the new baseline. It fails if a benchmark raises an error, but never because of
times.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from compare import Goal, goals_met, moved
from measure import Ratio

HERE = Path(__file__).parent
BASELINE, GOALS = HERE / "baseline.json", HERE / "goals.json"
PACKAGES = ("torch", "numpy", "zarr", "imagecodecs", "dask", "segmentation-models-pytorch", "timm")

# Arguments of each benchmark: quick, and full. None skips it.
PARTS: dict[str, tuple[list[str] | None, list[str]]] = {
    "tile": ([], ["--repeats", "9"]),
    "read": ([], ["--windows", "300", "--repeats", "9"]),
    "sampling": (["--patches", "160", "--peers", "none"], []),
    "train": ([], ["--patch", "512", "--patches", "160"]),
    "infer": (
        ["--only", "rates", "--only", "resume", "--only", "small", "--peers", "none"],
        ["--height", "4096"],
    ),
    "module": (["--repeats", "3"], []),
    "flow": (["--side", "4096", "--repeats", "1"], []),
    "decide": (["--height", "2048", "--only", "evaluate", "--only", "polygons"], []),
    "polygons": ([], ["--side", "30000", "--repeats", "1"]),
    "view": ([], []),
    "cluster": ([], ["--workers", "512", "--slides", "100000", "--strips", "1"]),
    "objects": ([], ["--side", "32768", "--repeats", "1"]),
    "scaling": ([], ["--full"]),
    "gpu": ([], ["--sides", "12288", "32768", "--compile", "--train"]),
    "start": ([], []),
    "load": (None, []),
    "export": (None, []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="full sizes, which take hours")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--save", action="store_true", help="make the result the baseline")
    options = parser.parse_args()
    ratios, figures, failed = {}, {}, []
    for name in options.only:
        arguments = PARTS[name][options.full]
        if arguments is None:
            continue
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        found = run(name, arguments)
        if found is None:
            failed.append(name)
            continue
        ratios |= {f"{name}: {key}": Ratio(**value) for key, value in found["ratios"].items()}
        figures |= {f"{name}: {key}": value for key, value in found["figures"].items()}
        figures[f"{name}: whole benchmark, s"] = round(time.perf_counter() - started)
        for key, value in found["figures"].items():
            print(f"   {key}: {value}")
    tell(ratios)
    document = {"machine": machine(), "ratios": ratios, "figures": figures}
    options.out.write_text(as_json(document))
    if options.save:
        BASELINE.write_text(as_json({"machine": machine(), "ratios": known() | ratios}))
    if failed:
        raise SystemExit(f"these benchmarks stopped with an error: {', '.join(failed)}")


def run(name: str, arguments: list[str]) -> dict[str, dict] | None:
    """Run one benchmark; return None if it fails, after it has printed its error."""
    command = [sys.executable, str(HERE / f"bench_{name}.py"), "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def tell(ratios: dict[str, Ratio]) -> None:
    """Print all ratios, changes and goals."""
    print("\nratio: median (least to largest of the turns)")
    for name, r in ratios.items():
        print(f"   {name}: {r.median:.3g} ({r.low:.3g} to {r.high:.3g})")
    changes = moved(ratios, known())
    print(f"\nmoved beyond noise since {BASELINE.name}: {len(changes) or 'nothing'}")
    for change in changes:
        print(f"   {change}")
    print("\ngoals")
    goals = {name: Goal(**goal) for name, goal in json.loads(GOALS.read_text()).items()}
    for line in goals_met(ratios, goals):
        print(f"   {line}")


def known() -> dict[str, Ratio]:
    """Read the ratios of the baseline, if there is one."""
    if not BASELINE.is_file():
        return {}
    return {name: Ratio(**r) for name, r in json.loads(BASELINE.read_text())["ratios"].items()}


def machine() -> dict[str, object]:
    """Describe the machine that the values depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return {
        "cores": os.cpu_count(),
        "processor": next((line.split(": ")[1] for line in lines if "model name" in line), ""),
        "amx": "amx_bf16" in flags,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def as_json(document: object) -> str:
    return json.dumps(document, indent=1, default=lambda ratio: ratio.to_json()) + "\n"


if __name__ == "__main__":
    main()
