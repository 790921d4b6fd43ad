"""Owns the README of a model on the hub: its card as Markdown, and plots of its training."""

import json
from pathlib import Path

from wsi_seg.models import ModelCard
from wsi_seg.reporting.headings import heading
from wsi_seg.reporting.training import METRICS, training_curves


def model_page(file: Path, card: ModelCard, *, licence: str) -> dict[str, bytes]:
    """Make the page of a model, as file contents by path in the repository.

    Parameters
    ----------
    file
        Model file; if there is a ``metrics.csv`` of a run next to it, it is plotted.
    card
        Model card.
    licence
        SPDX identifier.

    Returns
    -------
    dict[str, bytes]
        ``README.md`` and its figures.
    """
    metrics = file.with_name(METRICS)
    curves = training_curves(metrics) if metrics.is_file() else {}
    figures = {
        f"figures/{title.lower().replace(' ', '-')}.svg": (title, svg)
        for title, svg in curves.items()
    }
    shown = "".join(f"\n![{title}]({path})\n" for path, (title, _) in figures.items())
    text = _readme(file, card, licence) + (f"\n## Training\n{shown}" if shown else "")
    return {"README.md": text.encode()} | {path: svg.encode() for path, (_, svg) in figures.items()}


def _readme(file: Path, card: ModelCard, licence: str) -> str:
    classes = ", ".join(card.classes.names)
    mpp = "pixels of level 0" if card.mpp is None else f"{card.mpp:g} um per pixel"
    network = f"{card.architecture} on {card.encoder}" if card.architecture else "see the file"
    rows = [
        ("classes", classes),
        ("network", network),
        ("resolution", mpp),
        ("tile", f"{card.tile_px} pixels"),
        ("normalisation", f"mean {_list(card.mean)}, std {_list(card.std)} of image / 255"),
        ("output", card.output),
    ]
    scores = [(heading(name), f"{value:.4g}") for name, value in card.scores.items()]
    head = "\n".join(
        ["---", f"license: {licence.lower()}", "pipeline_tag: image-segmentation",
         "tags: [wsi-seg, histology, whole-slide-imaging]", "---"]
    )  # fmt: skip
    scored = (
        "\n## Scores\n\nMeasured on images held out from training; validate the model on your own "
        f"slides before you rely on it.\n\n{_table(('score', 'value'), scores)}"
        if scores
        else ""
    )
    return (
        f"{head}\n\n# Segmentation of {classes}\n\n"
        f"`{file.name}` predicts the probability of each class for each pixel of a slide.\n\n"
        f"{_table(('', ''), rows)}\n## Use\n\n```sh\npip install wsi-seg\n"
        f"wsi-seg infer store.zarr --checkpoint hf://OWNER/NAME --out pred.zarr\n```\n{scored}"
    )


def _table(heads: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [heads, ("---", "---"), *rows]
    return "".join(f"| {left} | {right} |\n" for left, right in lines)


def _list(values: tuple[float, ...]) -> str:
    return json.dumps([round(value, 4) for value in values])
