"""A stand-in for the Hugging Face hub on loopback: what pushing and fetching a model need."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Repositories, each a list of commits, which are files by their paths."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.private: dict[str, object] = {}

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """Commit and files of a revision."""
        oid = self.branches[repository].get(revision, revision)
        return next((o, f) for o, f in self.commits[repository] if o == oid)

    def commit(self, repository: str, branch: str, added: dict[str, bytes]) -> str:
        """Add files to a branch."""
        past = self.commits[repository]
        files = (past[-1][1] if past else {}) | added
        oid = hashlib.sha1(repr((len(past), sorted(files))).encode()).hexdigest()
        past.append((oid, files))
        self.branches[repository][branch] = oid
        return oid


class Handler(BaseHTTPRequestHandler):
    """Answers like the hub; everything is small enough to be sent inside of a commit."""

    hub: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, values: Any, status: int = 200) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Make a repository, ask how files are sent, or commit."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.strip("/").split("/")
        if self.headers.get("Authorization") != "Bearer secret":
            self.answer({"error": "no token"}, 401)
        elif self.path == "/api/repos/create":
            given = json.loads(body)
            name = "/".join(filter(None, (given.get("organization"), given["name"])))
            self.hub.commits.setdefault(name, [])
            self.hub.branches.setdefault(name, {})
            self.hub.private[name] = given.get("visibility", given.get("private"))
            self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif parts[4] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self.answer({"files": modes})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            added = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines if line["key"] == "file"
            }  # fmt: skip
            repository = "/".join(parts[2:4])
            oid = self.hub.commit(repository, parts[5], added)
            url = f"http://{self.headers['Host']}/{repository}/commit/{oid}"
            self.answer({"success": True, "commitOid": oid, "commitUrl": url})

    def do_HEAD(self) -> None:
        """Say what a file is."""
        self.do_GET()

    def do_GET(self) -> None:
        """List files, or send one."""
        parts = self.path.partition("?")[0].strip("/").split("/")
        try:
            if parts[0] == "api" and len(parts) < 6:
                self.answer({"error": "no token"}, 401)
                return
            if parts[0] == "api":
                repository, revision = "/".join(parts[2:4]), parts[5]
                _, files = self.hub.files(repository, revision)
                self.answer([
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ])  # fmt: skip
                return
            oid, files = self.hub.files("/".join(parts[:2]), parts[3])
            content = files["/".join(parts[4:])]
        except (KeyError, StopIteration):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", oid)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def served():
    """Run a hub; gives its address and what it holds."""
    hub = Hub()
    handler = type("OwnHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
