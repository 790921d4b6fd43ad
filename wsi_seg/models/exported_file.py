"""Owns networks that torch.export saved (``.pt2``), read so that no code of the file's runs.

torch's own reader unpickles parts of such a file and evaluates others as Python. So the file is
read here first, as a zip archive of JSON and raw tensors: it may hold a graph of torch's own
arithmetic and plain tensors. Whatever else it holds needs the user's trust.
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

# What a graph may call: torch's own operators, and Python's arithmetic of sizes.
_TARGET = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.[a-z]+|math\.[a-z]+|torch\.sym_\w+")

# Of these, what reads or writes files.
_FILES = re.compile(r"aten\.\w*(?:file|save|load)")

# Names in expressions: sizes, and functions of sympy and torch, whose names have capitals; older
# releases of torch compare sizes with Python's own.
_WORD = re.compile(r"[A-Za-z0-9]\w*|_\w*[a-z0-9]")
_CALLED = re.compile(r"[A-Z][A-Za-z]*|max|min")

# What guards ask of a tensor.
_ASKED = ("size", "stride", "storage_offset")

_ARITHMETIC = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name,
    ast.Call, ast.keyword, ast.Subscript, ast.Attribute, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop, ast.expr_context,
)  # fmt: skip

# Words in the description of inputs and outputs that make torch import a module by its name.
_IMPORTING = ("__enum__", "default_factory_module")


class ExportedNetwork(FileNetwork):
    """A network of torch.export.

    Parameters
    ----------
    path
        The file.
    device
        Where it computes.
    trust
        Read it whatever it holds, which may run code.

    Raises
    ------
    CheckpointError
        If the file is damaged, does not take one image, or could run code.
    """

    def __init__(self, path: Path, device: torch.device, *, trust: bool = False) -> None:
        if not trust:
            require_harmless(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(path)
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"cannot read {path} of torch.export: {reason}") from error
        names = program.graph_signature.user_inputs
        if len(names) != 1:
            raise CheckpointError(f"{path} takes {len(names)} inputs; expected one image")
        node = next(n for n in program.graph.nodes if n.op == "placeholder" and n.name == names[0])
        image = node.meta["val"]
        sizes = [side if isinstance(side, int) else None for side in image.shape]
        super().__init__(path, ImageForm.of(sizes, image.dtype, path))
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        # In a tuple, so that it is not a module inside this one: it can be neither moved nor set
        # to another mode.
        self._graph = (program.module(),)
        values = [*program.state_dict.values(), *program.constants.values()]
        self.parameters_count = sum(v.numel() for v in values if isinstance(v, torch.Tensor))

    def run(self, images: torch.Tensor) -> object:
        """Run one batch; see `FileNetwork.run`."""
        return self._graph[0](images)


def require_harmless(path: Path) -> None:
    """Raise a `CheckpointError` where reading a file of torch.export could run code."""
    try:
        with zipfile.ZipFile(path) as archive:
            finding = next(_findings(archive), None)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; expected a file of torch.export.save"
        ) from error
    if finding is not None:
        raise CheckpointError(
            f"{path} holds {finding}, so reading it could run code; where you trust its source, "
            "repeat with --trust; else ask for an ONNX file"
        )


def _findings(archive: zipfile.ZipFile) -> Iterator[str]:
    """Name what in an archive could run code."""
    for name in archive.namelist():
        inside = name.partition("/")[2]
        if inside.startswith("data/sample_inputs/"):
            yield from _pickled(archive.read(name))
        elif inside.endswith((".pt", ".so", ".pyd", ".dll", ".cpp", ".py")):
            yield f"the file {inside}"
        elif inside.endswith(".json") and not inside.startswith("extra/"):
            yield from _in_json(json.loads(archive.read(name)))


def _pickled(content: bytes) -> Iterator[str]:
    """Complain of a file of torch.save that holds more than tensors and plain values."""
    try:
        torch.load(io.BytesIO(content), weights_only=True) if content else None
    except (UnpicklingError, RuntimeError, EOFError):
        yield "sample inputs that are more than tensors"


def _in_json(value: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401 (JSON)
    """Name what in the JSON of an archive could run code, at any depth."""
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
    elif any(word in text for word in _IMPORTING):
        yield "values of types of its own"


def is_arithmetic(text: str) -> bool:
    """Whether an expression is arithmetic of sizes, and evaluating it harmless.

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
            return _WORD.fullmatch(name) is not None
        case ast.Attribute(value=ast.Name(id="torch"), attr=name):
            return name.startswith("sym_")
        case ast.Attribute(attr=name):
            return name in _ASKED
        case ast.Call(func=ast.Name(id=name)):
            return _CALLED.fullmatch(name) is not None
        case ast.Call(func=ast.Attribute()):
            return True
        case ast.Call():
            return False
    return True
