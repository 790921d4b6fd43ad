"""Owns obstore clients of object stores: credentials, retries and errors."""

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

# Retries of a failed request, and the time limit for all of them.
_TRIES = 6
_PATIENCE = timedelta(seconds=60)
_TIMEOUT = timedelta(seconds=60)
_CONNECT = timedelta(seconds=5)

# Errors of S3, GCS and Azure for a bucket that does not exist.
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")

# Answers of servers to missing, expired or insufficient credentials, also for a single object.
_DENIED = ("403 Forbidden", "401 Unauthorized", "AccessDenied", "lacked the necessary privileges")

# Maximum bytes of a key on S3, GCS and Azure; not all servers check it.
_LONGEST_KEY = 1024

# Maximum characters of a server's response to show in a message.
_LONGEST = 600


@cache
def client_of(scheme: str, host: str) -> "ObjectStore":
    """Return the client of a bucket or server, with credentials from the environment."""
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
    """Return credentials found by boto3: environment, profile, SSO or instance role."""
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return None  # a public bucket
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except (ImportError, ValueError):  # obstore's own chain, without profiles
        return None


def require_short(key: str, address: str) -> None:
    """Raise an `AddressError` for a key that object stores do not accept."""
    if (nbytes := len(key.encode())) > _LONGEST_KEY:
        reason = f"has a key of {nbytes:,} bytes; expected at most {_LONGEST_KEY:,}"
        reason += "; write to a shorter address, or give the slide a shorter name"
        raise AddressError(errno.ENAMETOOLONG, reason, address)


@contextmanager
def asking(address: str, *, writes: bool = False) -> Iterator[None]:
    """Convert errors of obstore to `AddressError` or `FileNotFoundError`.

    Errors of conditional writes (already exists, precondition failed) pass unchanged.
    """
    from obstore import exceptions as theirs

    if _is_forked:
        raise AddressError(
            errno.EIO,
            "this process was forked after object stores were used; start processes with spawn or "
            "forkserver",
            address,
        )
    if writes and address.startswith(READ_ONLY):
        reason = "web servers are read-only; write to a folder, s3://, gs:// or az://"
        raise AddressError(errno.EROFS, reason, address)
    try:
        yield
    except (theirs.AlreadyExistsError, theirs.PreconditionError):
        raise
    except FileNotFoundError as error:
        if writes:
            reason = "there is no such bucket; create it first"
            raise AddressError(errno.EIO, reason, address) from error
        raise FileNotFoundError(errno.ENOENT, "there is no such object", address) from error
    except (theirs.BaseError, ValueError) as error:
        raise _converted(error, address) from error


def _converted(error: Exception, address: str) -> AddressError:
    """Return an error that states what the server answered, in one line without credentials."""
    text = " ".join(str(error).partition("\n\nDebug source")[0].split())
    if any(word in text for word in _NO_BUCKET):
        return AddressError(errno.EIO, "there is no such bucket; create it first", address)
    text = without_secrets(text)[:_LONGEST]
    if any(word in text for word in _DENIED):
        reason = (
            f"access was denied ({text.rpartition(' - ')[2].rstrip(': ')}); expected credentials "
            "that have not expired and may read, write, list and delete there; check them, then "
            "repeat the command"
        )
        return AddressError(errno.EACCES, reason, address)
    reason = f"{text}; check the address and the network, then repeat the command"
    return AddressError(errno.EIO, reason, address)


_is_forked = False


def _after_fork() -> None:
    """Mark a forked child, whose inherited clients lack the threads of the parent."""
    global _is_forked
    _is_forked = _is_forked or client_of.cache_info().currsize > 0


os.register_at_fork(after_in_child=_after_fork)
