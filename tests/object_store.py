"""An object store on loopback, behind a gate that slows requests down or lets them fail."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.object_servers import SERVERS
from wsi_seg.files.object_path import place
from wsi_seg.testing.stores import digests

pytest.importorskip("obstore", reason="needs the extra `remote`")
BUCKET = "slides"

# What a gate does with a request: its method and path in, a fault or None out.
FAULTS = ("503", "slow", "cut", "unanswered", "lost")
Rule = Callable[[str, str], str | None]


@dataclass
class Gate:
    """In front of the server: counts requests, and gives some of them a fault.

    ``403``, ``503`` and ``cut`` (the connection ends): not done; ``unanswered``: done, but answered
    with an error; ``lost``: answered as done, but not done; ``slow``: done after a while.
    """

    app: Callable
    rule: Rule = lambda _method, _path: None
    seconds: float = 0.0
    seen: list[tuple[str, str]] = field(default_factory=list)
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    signed_by: set[str] = field(default_factory=set)

    def names(self) -> set[str]:
        """Names of the objects in the bucket of S3, without asking through the gate."""
        from moto.backends import get_backend

        return set(get_backend("s3")["123456789012"]["aws"].buckets[BUCKET].keys)

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.seen.append((method, path))
        signature = environ.get("HTTP_AUTHORIZATION", "Credential=nobody/")
        self.signed_by.add(signature.partition("Credential=")[2].partition("/")[0])
        time.sleep(self.seconds)
        fault = self.rule(method, path)
        if fault is None:
            return self.app(environ, start_response)
        self.faults.append((fault, method, path))
        if fault == "slow":
            time.sleep(0.5)
            return self.app(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if fault == "unanswered":
            list(self.app(environ, lambda *_: lambda _data: None))
        elif length:
            environ["wsgi.input"].read(length)
        if fault == "cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if fault == "lost":
            start_response("200 OK", [("Content-Length", "0"), ("ETag", '"0123"')])
            return [b""]
        if fault == "403":
            start_response("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        body = b"<Error><Code>SlowDown</Code><Message>Please reduce your rate.</Message></Error>"
        start_response("503 Slow Down", [("Content-Length", str(len(body)))])
        return [body]


def in_bucket(name: str = "", scheme: str = "s3") -> Any:
    """Path in the bucket."""
    return place(f"{scheme}://{BUCKET}/{name}")


def sent(folder: Path, root: Any) -> Any:
    """Copy a folder into the bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            (root / file.relative_to(folder)).write_bytes(file.read_bytes())
    return root


def fetched(root: Any, folder: Path) -> dict[str, str]:
    """Digests of what is below a path in the bucket, fetched into a folder."""
    for path in root.sizes():
        file = folder / path.relative_to(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.read_bytes())
    return digests(folder)


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type, message, *args):
        pass


@contextmanager
def object_store(scheme: str = "s3") -> Iterator[Gate]:
    """Gate of a server with an empty bucket; the environment names it meanwhile."""
    from wsi_seg.files.object_store import client_of

    serve, settings = SERVERS[scheme]
    with serve(BUCKET) as app, pytest.MonkeyPatch.context() as patch:
        gate = Gate(app)
        server = make_server("127.0.0.1", 0, gate, threaded=True, request_handler=_Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in settings(f"http://127.0.0.1:{server.server_port}").items():
            patch.setenv(name, value)
        client_of.cache_clear()
        try:
            yield gate
        finally:
            client_of.cache_clear()
            server.shutdown()
            server.server_close()
