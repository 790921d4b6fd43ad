"""Owns addresses (``s3://bucket/store.zarr``): telling them from paths, and hiding secrets."""

import re
from pathlib import Path, PurePath

# pathlib folds the "//" of an address to "/"; a single letter would be a drive of Windows.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+:)/")
# In a text: what is before the host, and what is after the path and grants access.
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]+:/{1,2})[^/\s@]*@")
# pathlib has folded the slashes of these.
_FOLDED = re.compile(r"\b(s3|gs|az|https?):/(?=[^/\s])")
_QUERY = re.compile(r"(\bhttps?:/{1,2}[^\s?'\"]+)\?[^\s'\")]*[^\s'\"):,;.]")


def is_remote(path: PurePath) -> bool:
    """Whether a path is an address; one below a folder that exists, such as ``s3:``, is not.

    Examples
    --------
    >>> is_remote(PurePath("s3://bucket/store.zarr")), is_remote(PurePath("slides/a.svs"))
    (True, False)
    """
    found = _ADDRESS.match(str(path))
    return found is not None and not Path(found.group(1)).is_dir()


def without_secrets(text: str) -> str:
    """Cut users, passwords and signatures out of all addresses in a text, and spell them out.

    Examples
    --------
    >>> without_secrets("cannot read https://me:word@host/a.svs?X-Amz-Signature=12: 403")
    'cannot read https://host/a.svs: 403'
    """
    return _QUERY.sub(r"\1", _USER.sub(r"\1", _FOLDED.sub(r"\1://", text)))
