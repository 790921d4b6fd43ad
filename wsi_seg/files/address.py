"""Owns recognizing addresses (``s3://bucket/store.zarr``) and removing their credentials."""

import re
from pathlib import Path, PurePath

# pathlib collapses "//" in addresses to "/"; a single letter is a Windows drive.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+:)/")
# User and password before the host; a query after the path can contain a signature.
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]+:/{1,2})[^/\s@]*@")
# Addresses whose slashes pathlib has collapsed.
_COLLAPSED = re.compile(r"\b(s3|gs|az|https?):/(?=[^/\s])")
_QUERY = re.compile(r"(\bhttps?:/{1,2}[^\s?'\"]+)\?[^\s'\")]*[^\s'\"):,;.]")


def is_remote(path: PurePath) -> bool:
    """Return whether a path is an address; an existing folder named ``s3:`` is not one.

    Examples
    --------
    >>> is_remote(PurePath("s3://bucket/store.zarr")), is_remote(PurePath("slides/a.svs"))
    (True, False)
    """
    found = _ADDRESS.match(str(path))
    return found is not None and not Path(found.group(1)).is_dir()


def without_secrets(text: str) -> str:
    """Remove users, passwords and signatures from all addresses in a text, and restore ``//``.

    Examples
    --------
    >>> without_secrets("cannot read https://me:word@host/a.svs?X-Amz-Signature=12: 403")
    'cannot read https://host/a.svs: 403'
    """
    return _QUERY.sub(r"\1", _USER.sub(r"\1", _COLLAPSED.sub(r"\1://", text)))
