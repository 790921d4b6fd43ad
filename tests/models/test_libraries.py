"""smp and timm load without torch's compiler, which is still there for whoever compiles."""

import subprocess
import sys

PREDICT = """
import sys
import torch
from wsi_seg.models import load_checkpoint
from wsi_seg.models.checkpoint import shipped_checkpoint
from wsi_seg.models.footprint import footprint
from wsi_seg.predict.predictor import Predictor

network, card = load_checkpoint(shipped_checkpoint())
footprint(card.spec)
predictor = Predictor(network, card, device="cpu")
predictor.predict(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
assert predictor.drift.labels < 1
"""

COMPILED_LATER = """
import torch, torchvision, wsi_seg.models
from timm.layers import disable_compiler
from torchvision.ops.roi_align import is_compile_supported

disable = torch.compiler.disable
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
import torch._dynamo.utils as utils

assert is_compile_supported("cpu") == utils.is_compile_supported("cpu")
assert torch.compiler.disable is disable and disable.__module__ == "torch.compiler"
assert disable_compiler(lambda x: x + 1)(1) == 2
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_predicting_loads_no_compiler():
    found = run(PREDICT + "print('torch._dynamo' in sys.modules)")
    assert found.stdout == "False\n", found.stderr


def test_the_compiler_loads_when_it_is_used():
    found = run(COMPILED_LATER)
    assert found.returncode == 0, found.stderr


def test_a_compiler_that_is_loaded_already_stays():
    found = run("import torch._dynamo.utils as utils, wsi_seg.models, sys\n"
                "assert sys.modules['torch._dynamo.utils'] is utils")  # fmt: skip
    assert found.returncode == 0, found.stderr
