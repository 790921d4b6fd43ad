"""Owns telling addresses (``s3://bucket/store.zarr``) from paths of files."""

import re
from pathlib import PurePath

# pathlib folds the "//" of an address to "/"; a single letter would be a drive of Windows.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")


def is_remote(path: PurePath) -> bool:
    """Whether a path is an address.

    Examples
    --------
    >>> is_remote(PurePath("s3://bucket/store.zarr")), is_remote(PurePath("slides/a.svs"))
    (True, False)
    """
    return _ADDRESS.match(str(path)) is not None
