"""A real S3 server (moto) on loopback whose every answer takes a while, as over a network.

``GET /-/requests`` says how many there were since it was last asked, by method.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        pass


def main() -> None:
    seconds, moto = float(sys.argv[1]), DomainDispatcherApplication(create_backend_app)
    counts: Counter[str] = Counter()

    def late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/-/requests":
            body = json.dumps(counts).encode()
            counts.clear()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        counts[environ["REQUEST_METHOD"]] += 1
        time.sleep(seconds)
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, late, threaded=True, request_handler=_Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
