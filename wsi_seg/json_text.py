"""Owns parsing JSON of strangers: bounded in depth and in values, before any of it is built."""

import json

import numpy as np

from wsi_seg.limits import Limits, advice, limits

_BLOCK = 1 << 22
# How deep each byte leads: [ and { down, ] and } up.
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]] = 1
_STEPS[[*b"]}"]] = -1


def parse_json(content: bytes, bound: Limits | None = None) -> object:
    """Parse JSON.

    Parameters
    ----------
    content
        A document in UTF-8, UTF-16 or UTF-32.
    bound
        Limits that hold; None to look them up, which takes longer than a short document.

    Returns
    -------
    object
        Lists, objects, texts, numbers, truth values and None.

    Raises
    ------
    ValueError
        If it is not JSON, or breaks one of the `wsi_seg.limits`.
    """
    bound = bound or limits()
    opened = content.count(b"[") + content.count(b"{")
    if opened + content.count(b",") > bound.text_values:
        raise ValueError(f"more values than are read; {advice('text_values')}")
    if opened > bound.json_depth and _depth(content) > bound.json_depth:
        raise ValueError(f"lists and objects nested too deep; {advice('json_depth')}")
    try:
        document: object = json.loads(content)
    except RecursionError as error:  # brackets within texts can hide some depth
        raise ValueError("lists and objects nested too deep") from error
    return document


def _depth(content: bytes) -> int:
    """Largest depth, counting the brackets within texts too."""
    deepest = depth = 0
    for start in range(0, len(content), _BLOCK):
        block = np.frombuffer(content, np.uint8, min(_BLOCK, len(content) - start), start)
        depths = np.cumsum(_STEPS[block], dtype=np.int32) + depth
        deepest, depth = max(deepest, int(depths.max())), int(depths[-1])
    return deepest
