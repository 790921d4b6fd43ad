"""Owns clients of object stores, by obstore: credentials, repeated requests, errors."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from wsi_seg.errors import AddressError
from wsi_seg.files.address import without_secrets

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3CredentialProvider

READ_ONLY = ("http", "https")
SCHEMES = ("s3", "gs", "az", *READ_ONLY)

# A request that fails is repeated this often, for this long, then it is an error.
_TRIES = 6
_PATIENCE = timedelta(seconds=60)
_TIMEOUT = timedelta(seconds=60)
_CONNECT = timedelta(seconds=5)

# What servers of S3, Google and Azure call a bucket that is missing.
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")

# Characters of what a server answers that are repeated in a message.
_LONGEST = 600


@cache
def client_of(scheme: str, host: str) -> "ObjectStore":
    """Client of a bucket or a server, with the credentials that the environment gives."""
    from obstore import store

    options: ClientConfig = {"timeout": _TIMEOUT, "connect_timeout": _CONNECT, "allow_http": True}
    retries: RetryConfig = {"max_retries": _TRIES, "retry_timeout": _PATIENCE}
    if scheme == "gs":
        return store.GCSStore(host, client_options=options, retry_config=retries)
    if scheme == "az":
        return store.AzureStore(host, client_options=options, retry_config=retries)
    if scheme == "s3":
        return store.S3Store(
            host,
            client_options=options,
            retry_config=retries,
            credential_provider=_aws_credentials(),
        )
    server, _, query = host.partition("?")
    url = f"{scheme}://{server}/" + (f"?{query}" if query else "")
    return store.HTTPStore.from_url(url, client_options=options, retry_config=retries)


def _aws_credentials() -> "S3CredentialProvider | None":
    """Credentials as boto3 finds them: environment, profile, sign-on, role of the machine."""
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return None  # a public bucket
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except (ImportError, ValueError):  # obstore has a chain of its own, without profiles
        return None


@contextmanager
def asking(address: str, *, writes: bool = False) -> Iterator[None]:
    """Turn what servers answer, and the library says of it, into one error.

    What a condition keeps from being written is left as it is.
    """
    from obstore import exceptions as theirs

    if _is_forked:
        raise AddressError(
            errno.EIO,
            "was read by this process before it was forked; start others by spawn or forkserver",
            address,
        )
    if writes and address.startswith(READ_ONLY):
        reason = "a web server is only read; write to a folder, s3://, gs:// or az://"
        raise AddressError(errno.EROFS, reason, address)
    try:
        yield
    except (theirs.AlreadyExistsError, theirs.PreconditionError):
        raise
    except FileNotFoundError as error:
        if writes:
            reason = "there is no such bucket; make it first"
            raise AddressError(errno.EIO, reason, address) from error
        raise FileNotFoundError(errno.ENOENT, "there is no such object", address) from error
    except (theirs.PermissionDeniedError, theirs.UnauthenticatedError) as error:
        raise AddressError(errno.EACCES, _sentence(error), address) from error
    except (theirs.BaseError, ValueError) as error:
        raise AddressError(errno.EIO, _sentence(error), address) from error


def _sentence(error: Exception) -> str:
    """Say what went wrong, and how often it was tried, without what grants access."""
    if any(word in str(error) for word in _NO_BUCKET):
        return "there is no such bucket; make it first"
    text = str(error).partition("\n\nDebug source")[0]
    return without_secrets(" ".join(text.split()))[:_LONGEST]


_is_forked = False


def _after_fork() -> None:
    """Refuse in a forked child: it has the clients of its parent, without their threads."""
    global _is_forked
    _is_forked = _is_forked or client_of.cache_info().currsize > 0


os.register_at_fork(after_in_child=_after_fork)
