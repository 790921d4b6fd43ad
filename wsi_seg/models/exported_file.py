"""Owns networks saved by torch.export (``.pt2``), loaded without executing code from the file.

``torch.export.load`` unpickles parts of the file and evaluates others as Python. The file is
therefore scanned first, as a zip archive of JSON and raw tensors: it may contain plain tensors and
a graph of torch's own operators. Anything else requires ``trust``.
"""

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.export.passes import move_to_device_pass

from wsi_seg.errors import CheckpointError
from wsi_seg.models.file_network import FileNetwork, ImageForm

# Allowed call targets of a graph: torch's operators, and Python's arithmetic on sizes.
_TARGET = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.[a-z]+|math\.[a-z]+|torch\.sym_\w+")

# Operators among them that read or write files.
_FILES = re.compile(r"aten\.\w*(?:file|save|load)")

# Names in expressions: sizes, and capitalised functions of sympy and torch; older releases of torch
# also use Python's max and min.
_NAME = re.compile(r"[A-Za-z0-9]\w*|_\w*[a-z0-9]")
_FUNCTION = re.compile(r"[A-Z][A-Za-z]*|max|min")

# Attributes of tensors in guards.
_ATTRIBUTES = ("size", "stride", "storage_offset")

_ARITHMETIC = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name,
    ast.Call, ast.keyword, ast.Subscript, ast.Attribute, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop, ast.expr_context,
)  # fmt: skip

# Keys in the description of inputs and outputs that make torch import a module by name.
_IMPORTS = ("__enum__", "default_factory_module")


class ExportedNetwork(FileNetwork):
    """A network saved by torch.export.

    Parameters
    ----------
    path
        Path of the file.
    device
        Device on which to run the network.
    trust
        Load the file whatever it contains, which may execute code.

    Raises
    ------
    CheckpointError
        If the file is damaged, its network does not take one image, or loading could execute code.
    """

    def __init__(self, path: Path, device: torch.device, *, trust: bool = False) -> None:
        if not trust:
            require_safe(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(path)
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"cannot read {path} with torch.export: {reason}") from error
        names = program.graph_signature.user_inputs
        if len(names) != 1:
            raise CheckpointError(f"{path} takes {len(names)} inputs; expected one image")
        node = next(n for n in program.graph.nodes if n.op == "placeholder" and n.name == names[0])
        image = node.meta["val"]
        sizes = [side if isinstance(side, int) else None for side in image.shape]
        super().__init__(path, ImageForm.of(sizes, image.dtype, path))
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        # In a tuple, so that it is not a submodule: it must not be moved or change its mode.
        self._graph = (program.module(),)
        values = [*program.state_dict.values(), *program.constants.values()]
        self.parameters_count = sum(v.numel() for v in values if isinstance(v, torch.Tensor))

    def run(self, images: torch.Tensor) -> object:
        """Run one batch; see `FileNetwork.run`."""
        return self._graph[0](images)


def require_safe(path: Path) -> None:
    """Raise a `CheckpointError` if loading a file with torch.export could execute code."""
    try:
        with zipfile.ZipFile(path) as archive:
            finding = next(_findings(archive), None)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; expected a file written by torch.export.save"
        ) from error
    if finding is not None:
        raise CheckpointError(
            f"{path} holds {finding}, so loading it could run code; if you trust its source, "
            "retry with --trust; otherwise use an ONNX file"
        )


def _findings(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield descriptions of the parts of an archive that could execute code."""
    for name in archive.namelist():
        inside = name.partition("/")[2]
        if inside.startswith("data/sample_inputs/"):
            yield from _pickled(archive.read(name))
        elif inside.endswith((".pt", ".so", ".pyd", ".dll", ".cpp", ".py")):
            yield f"the file {inside}"
        elif inside.endswith(".json") and not inside.startswith("extra/"):
            yield from _in_json(json.loads(archive.read(name)))


def _pickled(content: bytes) -> Iterator[str]:
    """Yield a finding if a torch.save file contains more than tensors and plain values."""
    try:
        torch.load(io.BytesIO(content), weights_only=True) if content else None
    except (UnpicklingError, RuntimeError, EOFError):
        yield "sample inputs other than tensors"


def _in_json(value: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401 (JSON)
    """Yield descriptions of the JSON values that could execute code, at any depth."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _in_json(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _in_json(part, key)
    elif key == "use_pickle" and value:
        yield "pickled tensors"
    elif isinstance(value, str):
        yield from _in_text(value, key)


def _in_text(text: str, key: str) -> Iterator[str]:
    if key == "path_name" and not text.startswith(("weight_", "tensor_")):
        yield f"an object {text}"
    elif key in ("target", "as_operator"):
        if not _TARGET.fullmatch(text) or _FILES.search(text):
            yield f"the operator {text}"
    elif key in ("expr_str", "guards_code"):
        if not is_arithmetic(text):
            yield f"the expression {text[:60]!r}"
    elif any(word in text for word in _IMPORTS):
        yield "values of custom types"


def is_arithmetic(text: str) -> bool:
    """Return whether an expression is arithmetic on sizes, and therefore safe to evaluate.

    Examples
    --------
    >>> is_arithmetic("Mul(Integer(32), Symbol('s7', integer=True))")
    True
    >>> is_arithmetic("L['x'].size()[2] % 32 == 0")
    True
    >>> is_arithmetic("__import__('os').system('id')")
    False
    >>> is_arithmetic("max(1, s7 // 2) == 16")
    True
    >>> is_arithmetic("torch.sym_max(1, L['x'].size()[2] // 2) == 16")
    True
    """
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        return False
    return all(isinstance(node, _ARITHMETIC) and _is_plain(node) for node in nodes)


def _is_plain(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name) | ast.Constant(value=str(name)):
            return _NAME.fullmatch(name) is not None
        case ast.Attribute(value=ast.Name(id="torch"), attr=name):
            return name.startswith("sym_")
        case ast.Attribute(attr=name):
            return name in _ATTRIBUTES
        case ast.Call(func=ast.Name(id=name)):
            return _FUNCTION.fullmatch(name) is not None
        case ast.Call(func=ast.Attribute()):
            return True
        case ast.Call():
            return False
    return True
