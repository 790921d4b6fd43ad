"""The GPU's benchmark ends well without a GPU, and all its steps run on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_gpu.py"


def run(*words):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, "--json", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which takes minutes")
def test_without_a_gpu_it_says_so():
    found = run()
    assert found["ratios"] == {}
    assert "no CUDA device" in found["figures"]["GPU"]


@pytest.mark.torture
def test_all_steps_run_on_the_cpu():
    found = run("--device", "cpu", "--quick", "--sweep")
    names = "\n".join(found["ratios"])
    for part in ("end to end / bare forward", "device use", "transfer", "writing", "training"):
        assert part in names
    agrees = [v for k, v in found["figures"].items() if "against the CPU in fp32" in k]
    assert len(agrees) == 2
