"""Owns parsing untrusted JSON: depth and number of values are checked before parsing."""

import json

import numpy as np

from wsi_seg.limits import Limits, advice, limits

_BLOCK = 1 << 22
# Change of depth by byte: +1 for [ and {, -1 for ] and }.
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]] = 1
_STEPS[[*b"]}"]] = -1


def parse_json(content: bytes, bound: Limits | None = None) -> object:
    """Parse a JSON document within limits.

    Parameters
    ----------
    content
        A document in UTF-8, UTF-16 or UTF-32.
    bound
        The limits; None looks them up, which takes longer than parsing a short document.

    Returns
    -------
    object
        Lists, dicts, strings, numbers, booleans and None.

    Raises
    ------
    ValueError
        If the content is not JSON, or exceeds one of the `wsi_seg.limits`.
    """
    bound = bound or limits()
    opened = content.count(b"[") + content.count(b"{")
    if opened + content.count(b",") > bound.text_values:
        raise ValueError(f"got too many values; {advice('text_values')}")
    if opened > bound.json_depth and _depth(content) > bound.json_depth:
        raise ValueError(f"got lists and objects nested too deep; {advice('json_depth')}")
    try:
        document: object = json.loads(content)
    except RecursionError as error:  # brackets in strings can hide depth
        raise ValueError("got lists and objects nested too deep") from error
    return document


def _depth(content: bytes) -> int:
    """Return the maximum depth, counting also the brackets in strings."""
    deepest = depth = 0
    for start in range(0, len(content), _BLOCK):
        block = np.frombuffer(content, np.uint8, min(_BLOCK, len(content) - start), start)
        depths = np.cumsum(_STEPS[block], dtype=np.int32) + depth
        deepest, depth = max(deepest, int(depths.max())), int(depths[-1])
    return deepest
