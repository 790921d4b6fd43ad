"""Owns archives of bioimage.io models: a description, weights, and tensors to test them with.

The description follows version 0.5 of the specification, which QuPath, ilastik, deepImageJ and
bioimageio.core read. It is written as plain YAML; bioimageio.core checks it in our tests.
"""

import hashlib
import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from wsi_seg.models import ModelCard

_FORMAT = "0.5.4"

# What the description cites where the maker names nothing: the paper of the model zoo.
_CITED = {
    "text": "Ouyang et al. BioImage Model Zoo: a community-driven resource (2022)",
    "doi": "10.1101/2022.06.07.495102",
}

# Version of ONNX operators that is written.
OPSET = 20


@dataclass(frozen=True, slots=True)
class Credits:
    """Who made a model, for those who use it.

    Parameters
    ----------
    name
        Name of the model; None takes its classes.
    authors
        Their names.
    licence
        As SPDX spells it.

    Examples
    --------
    >>> Credits(name="Nuclei", authors=("A. Lab",)).licence
    'CC-BY-4.0'
    """

    name: str | None = None
    authors: tuple[str, ...] = ("unknown",)
    licence: str = "CC-BY-4.0"


def write_bioimageio(
    path: Path,
    card: ModelCard,
    script: Path,
    onnx: Path,
    given: NDArray[np.float32],
    expected: NDArray[np.float32],
    *,
    multiple: int | None,
    credits: Credits,
) -> None:
    """Write an archive.

    Parameters
    ----------
    path
        The ``.zip``.
    card
        Of the packed network.
    script, onnx
        Its weights.
    given, expected
        Images ``(1, C, H, W)`` of 0 to 255, and their probabilities ``(1, outputs, H, W)``.
    multiple
        What divides the sides of images; None where they have to be those of ``given``.
    credits
        Who made it.
    """
    parts = {
        "weights.pt": script.read_bytes(),
        "weights.onnx": onnx.read_bytes(),
        "test_input.npy": _npy(given),
        "test_output.npy": _npy(expected),
        "README.md": _readme(card).encode(),
    }
    files = {
        name: {"source": name, "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in parts.items()
    }
    side = given.shape[-1]
    size: object = side if multiple is None else {"min": 2 * multiple, "step": multiple}
    description = _about(card, credits) | {
        "documentation": files["README.md"],
        "inputs": [_input(card, size, files["test_input.npy"])],
        "outputs": [_output(card, files["test_output.npy"])],
        "weights": {
            "torchscript": files["weights.pt"]
            | {"pytorch_version": torch.__version__.partition("+")[0]},
            "onnx": files["weights.onnx"] | {"opset_version": OPSET, "parent": "torchscript"},
        },
    }
    # By way of JSON, so that no part is written as a reference to another.
    text = yaml.safe_dump(json.loads(json.dumps(description)), sort_keys=False, allow_unicode=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rdf.yaml", text)
        for name, content in parts.items():
            archive.writestr(name, content)


def _about(card: ModelCard, credits: Credits) -> dict[str, object]:
    classes = ", ".join(card.classes.names)
    return {
        "type": "model",
        "format_version": _FORMAT,
        "name": _plain(credits.name or f"segmentation of {classes}"),
        "description": f"Probabilities of {classes} for each pixel, made with wsi_seg."[:1024],
        "authors": [{"name": author} for author in credits.authors],
        "cite": [_CITED],
        "license": credits.licence,
        "tags": ["semantic-segmentation", "histology", "2d", "pytorch"],
    }


def _input(card: ModelCard, size: object, file: object) -> dict[str, object]:
    names = ["red", "green", "blue"]
    if card.in_channels != len(names):
        names = [f"channel{number}" for number in range(card.in_channels)]
    return {
        "id": "image",
        "axes": [{"type": "batch"}, _channels(names), *(_space(n, size, card.mpp) for n in "yx")],
        "data": {"type": "float32", "range": [0.0, 255.0]},
        "test_tensor": file,
    }


def _output(card: ModelCard, file: object) -> dict[str, object]:
    sizes = [(name, {"tensor_id": "image", "axis_id": name}) for name in "yx"]
    background = ["background"] * card.classes.is_exclusive
    names = background + [_word(name) for name in card.classes.names]
    return {
        "id": "probabilities",
        "axes": [
            {"type": "batch"},
            _channels(names),
            *(_space(name, size, card.mpp) for name, size in sizes),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "test_tensor": file,
    }


def _channels(names: list[str]) -> dict[str, object]:
    return {"type": "channel", "channel_names": names}


def _space(name: str, size: object, mpp: float | None) -> dict[str, object]:
    scale = {} if mpp is None else {"unit": "micrometer", "scale": mpp}
    return {"type": "space", "id": name, "size": size} | scale


def _word(name: str) -> str:
    """Name of a channel, which has to be a word."""
    word = re.sub(r"\W+", "_", name).strip("_").lower()
    return word if word and not word[0].isdigit() else f"class_{word}"


def _plain(name: str) -> str:
    """Name of a model: letters, digits, and some signs."""
    return re.sub(r"[^\w +()-]", " ", name).strip()[:128]


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _readme(card: ModelCard) -> str:
    mpp = "unknown" if card.mpp is None else f"{card.mpp:g} um per pixel"
    scores = "".join(f"| {name} | {value:.4g} |\n" for name, value in card.scores.items())
    table = f"\n| score | value |\n|---|---|\n{scores}" if scores else ""
    return (
        f"# Segmentation of {', '.join(card.classes.names)}\n\n"
        f"Input: RGB of 0 to 255 at {mpp}; tiles of {card.tile_px} pixels. Output: the probability "
        "of each class for each pixel. Normalisation and activation are inside.\n\n"
        "## Validation\n\n"
        "The scores are of images that were held out in training; check the model on your own "
        f"images before you rely on it.\n{table}"
    )
