"""Owns telling addresses (``s3://bucket/store.zarr``) from paths of files."""

import re
from pathlib import Path, PurePath

# pathlib folds the "//" of an address to "/"; a single letter would be a drive of Windows.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+:)/")


def is_remote(path: PurePath) -> bool:
    """Whether a path is an address; one below a folder that exists, such as ``s3:``, is not.

    Examples
    --------
    >>> is_remote(PurePath("s3://bucket/store.zarr")), is_remote(PurePath("slides/a.svs"))
    (True, False)
    """
    found = _ADDRESS.match(str(path))
    return found is not None and not Path(found.group(1)).is_dir()
