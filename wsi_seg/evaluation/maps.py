"""Owns maps of the errors and the uncertainty of a prediction, stored as its labels.

``errors``: right, false and missed pixels. ``energy``: ``T * logsumexp(logits / T)`` over
background and class, high if the class is certain. ``uncertainty``: ``p (1 - p)``, high if p is
near one half. ``variance``: that of p between the members of an ensemble, high if they disagree.
The last three are of the most probable class, in 255 steps, whose size is an attribute of the
label. If classes overlap, a pixel is missed if any class is missed, else false if any is false.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import ClassTable
from wsi_seg.evaluation.calibration import value_logits
from wsi_seg.evaluation.pairing import (
    PredictionTruthStrip,
    compared,
    paired_strips,
    read_together,
    require_alike,
    require_same_classes,
    require_same_slide,
)
from wsi_seg.postprocess.label_map import predicted_label
from wsi_seg.postprocess.strips import Source, Strip, argmax_strips, label_strips
from wsi_seg.postprocess.write import write_label
from wsi_seg.store import Multiscale, SlideStore

ERRORS, ENERGY, UNCERTAINTY, VARIANCE = "errors", "energy", "uncertainty", "variance"
ALL_MAPS = (ERRORS, ENERGY, UNCERTAINTY)

_ROWS = 64  # rows whose variance is computed at a time

# The largest variance of numbers from 0 to 1 is 0.25.
_VARIANCE_STEP = 0.25 / 255

# Colours that colour-blind people can distinguish.
_STATES = ClassTable.named(["right", "false", "missed"], ["#009e73", "#d55e00", "#0072b2"])


def write_maps(
    prediction: SlideStore, truth: SlideStore, *, label: str, found_label: str
) -> tuple[str, ...]:
    """Write ``errors``, and ``energy`` and ``uncertainty`` if probabilities were saved.

    See `write_errors` and `write_heat`.

    Returns
    -------
    tuple[str, ...]
        Names of the labels that were written.
    """
    write_errors(prediction, truth, label=label, found_label=found_label)
    if prediction.saved == "labels":
        return (ERRORS,)
    write_heat(prediction, ENERGY)
    write_heat(prediction, UNCERTAINTY)
    return ALL_MAPS


def write_errors(
    prediction: SlideStore, truth: SlideStore, *, label: str, found_label: str
) -> Multiscale:
    """Write a label of right (1), false (2, the truth is different) and missed (3) pixels.

    Parameters
    ----------
    prediction, truth
        Prediction and store of one slide.
    label, found_label
        Names of the ground-truth label, and of the scored label.

    Raises
    ------
    StoreError
        If prediction and truth cannot be compared.
    """
    require_same_slide(prediction, truth)
    pairs = [
        (predicted_label(found, found_label), true.label(label))
        for found, true in compared(prediction, truth, label)
    ]
    for found, true in pairs:
        require_same_classes(truth.name, found.classes, true.classes, label)

    def source(strip_px: int) -> Source:
        def strips() -> Iterator[Strip]:
            each = [
                paired_strips(
                    label_strips(found, strip_px=strip_px),
                    found.classes,
                    true,
                    height=found.pyramid.extent.height,
                )
                for found, true in pairs
            ]
            for of_classes in zip(*each, strict=True):
                states = np.maximum.reduce([_states(strip) for strip in of_classes])
                yield Strip(of_classes[0].y, states, of_classes[0].probability)

        return strips

    return write_label(prediction, ERRORS, source, classes=_STATES, note={"scored": found_label})


def _states(strip: PredictionTruthStrip) -> NDArray[np.uint8]:
    states = np.zeros_like(strip.found)
    states[(strip.found == 0) & (strip.true != 0)] = 3
    states[(strip.found != 0) & (strip.found != strip.true)] = 2
    states[(strip.found != 0) & (strip.found == strip.true)] = 1
    states[~strip.valid] = 0
    return states


def energy_score_table(temperature: float = 1.0) -> tuple[NDArray[np.uint8], float]:
    """Return the energy of each probability value, ``(256,)`` uint8 in steps, and the step.

    Parameters
    ----------
    temperature
        T. The logits of background and class are 0 and ``log(p / (1 - p))``; see `value_logits`.
    """
    energy = temperature * np.logaddexp(0, value_logits() / temperature)
    step = float(energy[-1] / 255)
    return np.rint(energy / step).astype(np.uint8), step


def uncertainty_table() -> tuple[NDArray[np.uint8], float]:
    """Return ``p (1 - p)`` of each probability value, ``(256,)`` uint8 in steps, and the step."""
    p = np.arange(256) / 255
    step = 0.25 / 255
    return np.rint(p * (1 - p) / step).astype(np.uint8), step


def write_heat(prediction: SlideStore, name: str, *, temperature: float = 1.0) -> Multiscale:
    """Write the energy or the uncertainty of each pixel.

    Parameters
    ----------
    prediction
        Prediction of one slide.
    name
        ``energy`` or ``uncertainty``.
    temperature
        Temperature of the energy.

    Raises
    ------
    StoreError
        If the prediction has no probabilities.
    """
    image = prediction.probabilities
    table, step = energy_score_table(temperature) if name == ENERGY else uncertainty_table()

    def source(strip_px: int) -> Source:
        def strips() -> Iterator[Strip]:
            for strip in argmax_strips(image, strip_px=strip_px)():
                yield replace(strip, ids=table[strip.probability])

        return strips

    note: dict[str, object] = {"step": step, "temperature": temperature}
    return write_label(prediction, name, source, classes=ClassTable(()), note=note)


def write_variance(prediction: SlideStore, members: Sequence[SlideStore]) -> Multiscale:
    """Write the disagreement of the members of an ensemble about each pixel.

    Parameters
    ----------
    prediction
        Prediction of the ensemble for one slide, to which the label is added.
    members
        Predictions of the members for the same slide.

    Raises
    ------
    StoreError
        If they differ in slide, size or classes, or a member has no probabilities.
    """
    require_alike([prediction, *members])
    images = [member.probabilities for member in members]
    extent = prediction.pyramid.extent

    def source(strip_px: int) -> Source:
        def strips() -> Iterator[Strip]:
            for region in extent.strips(strip_px):
                values = read_together(images, region)
                parts = [
                    variance_of([value[row : row + _ROWS] for value in values])
                    for row in range(0, region.height, _ROWS)
                ]
                steps = np.concatenate(parts)
                yield Strip(region.y, steps, np.zeros_like(steps))

        return strips

    note: dict[str, object] = {"step": _VARIANCE_STEP, "members": len(members)}
    return write_label(prediction, VARIANCE, source, classes=ClassTable(()), note=note)


def variance_of(values: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Compute the variance between members of the class that is most probable on average.

    Parameters
    ----------
    values
        Probabilities ``(H, W, C)`` uint8 of each member, value / 255.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W)`` variance in steps of 0.25 / 255.
    """
    total = np.sum(values, axis=0, dtype=np.int64)
    best = total.argmax(axis=2)[..., None]
    total = np.take_along_axis(total, best, axis=2)[..., 0]
    squares = np.zeros_like(total)
    for value in values:
        squares += np.take_along_axis(value, best, axis=2)[..., 0].astype(np.int64) ** 2
    count = len(values)
    variance = (count * squares - total**2) / (255 * count) ** 2
    return np.rint(variance / _VARIANCE_STEP).astype(np.uint8)
