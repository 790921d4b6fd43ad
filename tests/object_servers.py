"""What answers behind `tests.object_store`: moto for S3, azurite for Azure, moto again for Google.

moto and azurite are servers that others wrote. No server of Google's protocol keeps its conditions
and can be installed as a package, so its headers are translated into those of S3, of which it is a
dialect, and generations are counted here.
"""

import atexit
import base64
import hashlib
import hmac
import http.client
import shutil
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

App = Callable[..., Any]

# Installed by `make azurite`, or on the path.
_AZURITE = Path(__file__).parents[1] / ".azurite/node_modules/.bin/azurite-blob"

# The account that azurite has, with its published key.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def s3(bucket: str) -> Iterator[App]:
    """A real S3 server with an empty bucket."""
    from moto.backends import get_backend

    moto = pytest.importorskip("moto.server", reason="needs moto, of the extra `dev`")
    get_backend("s3")["123456789012"]["aws"].create_bucket(bucket, "us-east-1")
    try:
        yield moto.DomainDispatcherApplication(moto.create_backend_app)
    finally:
        get_backend("s3").reset()


def s3_settings(server: str) -> dict[str, str]:
    """What the environment says of it."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }


@contextmanager
def azure(bucket: str) -> Iterator[App]:
    """A real azurite, with an empty container."""
    server = _azurite()
    _signed(server, "PUT", bucket)
    try:
        yield _forwarding(server)
    finally:
        _signed(server, "DELETE", bucket)


def azure_settings(server: str) -> dict[str, str]:
    """What the environment says of it."""
    return {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": server}


@cache
def _azurite() -> str:
    """Host and port of an azurite that ends with this process."""
    command = shutil.which("azurite-blob") or str(_AZURITE)
    if not Path(command).is_file():
        pytest.skip("needs azurite: make azurite")
    options = ["--inMemoryPersistence", "--disableTelemetry", "--silent", "--blobPort", "0"]
    process = subprocess.Popen([command, *options], stdout=subprocess.PIPE, text=True)
    atexit.register(process.wait)
    atexit.register(process.terminate)
    assert process.stdout is not None
    for line in process.stdout:
        if "listens on" in line:
            return urlsplit(line.split()[-1]).netloc
    pytest.fail("azurite has not started")


def _signed(server: str, method: str, container: str) -> None:
    """Make or remove a container; clients of objects do not."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2023-11-03"}
    lines = [f"{name}:{value}" for name, value in headers.items()]
    text = "\n".join([
        method, *[""] * 11, *lines, f"/{_ACCOUNT}/{_ACCOUNT}/{container}", "restype:container",
    ])  # fmt: skip
    digest = hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}"
    connection = http.client.HTTPConnection(server)
    connection.request(method, f"/{_ACCOUNT}/{container}?restype=container", headers=headers)
    assert connection.getresponse().status < 300
    connection.close()


def _forwarding(server: str) -> App:
    """Pass requests on to a server."""

    def app(environ, start_response):
        connection = http.client.HTTPConnection(server)
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
        }
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        connection.request(environ["REQUEST_METHOD"], environ["REQUEST_URI"], body, headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = [one for one in answer.getheaders() if one[0].lower() not in _OF_A_CONNECTION]
        if environ["REQUEST_METHOD"] != "HEAD":
            kept.append(("Content-Length", str(len(content))))
        else:
            kept.append(("Content-Length", answer.headers["content-length"] or "0"))
        start_response(f"{answer.status} {answer.reason}", kept)
        connection.close()
        return [content]

    return app


_OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@contextmanager
def google(bucket: str) -> Iterator[App]:
    """S3's server, with Google's headers."""
    with s3(bucket) as app:
        yield _Google(app)


def google_settings(server: str) -> dict[str, str]:
    """What the environment says of it."""
    return {"GOOGLE_BASE_URL": server, "GOOGLE_BEARER_TOKEN": "not-to-be-seen"}


class _Google:
    """Google's XML interface where it differs from S3: generations of objects, and their headers.

    https://cloud.google.com/storage/docs/xml-api/reference-headers
    """

    def __init__(self, app: App) -> None:
        self._app, self._lock = app, threading.Lock()
        self._generations = defaultdict[str, int](int)
        self._last = 1_700_000_000_000_000

    def __call__(self, environ, start_response):
        key, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        environ["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=a/1/us-east-1/s3/aws4_request"
        if (source := environ.pop("HTTP_X_GOOG_COPY_SOURCE", None)) is not None:
            environ["HTTP_X_AMZ_COPY_SOURCE"] = source
        with self._lock:
            wanted = environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH")
            if wanted is not None and int(wanted) != self._generations[key]:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response("412 Precondition Failed", [("Content-Length", "0")])
                return [b""]
            if method == "DELETE" and not self._generations[key]:
                start_response("404 Not Found", [("Content-Length", "0")])
                return [b""]
            if method in ("PUT", "DELETE"):
                self._last += 1
                self._generations[key] = 0 if method == "DELETE" else self._last
            return list(self._done(environ, start_response, key))

    def _done(self, environ, start_response, key):
        def start(status, headers, *more):
            generation = ("x-goog-generation", str(self._generations[key]))
            return start_response(status, [*headers, generation], *more)

        return self._app(environ, start)


SERVERS = {"s3": (s3, s3_settings), "az": (azure, azure_settings), "gs": (google, google_settings)}
