"""Owns loading smp and timm, without torch's compiler, which they load whole and do not need.

torchvision asks it for one function, timm for one decorator. That is 900 modules and 1.2 s of the
5 s that a command took to its first tile, and most commands compile nothing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch._compile import _disable_dynamo

# The part of the compiler that torchvision asks.
_ASKED = "torch._dynamo.utils"


class _Deferred(ModuleType):
    """Stands for a part of the compiler while libraries load; the compiler loads when it is used.

    Whoever needs more of it meanwhile gets the real one.
    """

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        """Ask the real one, when torchvision wants to know."""
        supported: bool = import_module(_ASKED).is_compile_supported(device_type)
        return supported

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # asked of every module by whoever looks for source code
            raise AttributeError(name)
        if sys.modules.get(_ASKED) is self:
            del sys.modules[_ASKED]
        return getattr(import_module(_ASKED), name)


def _disable(fn: Any = None, recursive: Any = True, *, reason: Any = None) -> Any:  # noqa: ANN401 (as torch's)
    """Exclude a function from compiling, as torch.compiler.disable does, from its first call on."""
    return _disable_dynamo(fn, recursive)


@contextmanager
def _compiler_deferred() -> Iterator[None]:
    if _ASKED in sys.modules:
        yield
        return
    disable, deferred = torch.compiler.disable, _Deferred(_ASKED)
    sys.modules[_ASKED], torch.compiler.disable = deferred, _disable
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(_ASKED) is deferred:
            del sys.modules[_ASKED]


with _compiler_deferred():
    import segmentation_models_pytorch as smp
    import timm

__all__ = ["smp", "timm"]
