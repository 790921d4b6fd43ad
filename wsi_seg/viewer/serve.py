"""Owns running the viewer's server: checks its input, opens the socket, makes the token."""

import contextlib
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from wsi_seg.errors import ConfigError, OutputError, StoreNotFoundError
from wsi_seg.store import Collection, Predictions, shared_cache
from wsi_seg.viewer.app import STATIC, make_app, make_pair
from wsi_seg.viewer.auth import LOOPBACK
from wsi_seg.viewer.catalog import Catalog

LIBRARY = STATIC / "vendor" / "openseadragon.min.js"

# Cache of decoded chunks: about two screens of tiles of every layer.
_CACHE_BYTES = 96 * 2**20


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """Options of the viewer's server.

    Parameters
    ----------
    host
        Address to listen on. Addresses other than loopback require a token, which is generated.
    port
        Port to listen on; 0 picks a free one.
    review
        Folder of reviews; None makes the viewer read-only.
    framed
        Whether pages of this machine, such as a notebook, may embed the viewer in a frame.
    weight
        Weight of reviewed annotations in training, 0 to 1.
    sam
        Decoder of a promptable model, with its encoder next to it; see
        `wsi_seg.models.promptable`. None disables clicks.
    other
        Other predictions to show next to the first, without review; None shows one.
    """

    host: str = "127.0.0.1"
    port: int = 8123
    review: Path | None = None
    framed: bool = False
    weight: float = 1.0
    sam: Path | None = None
    other: Predictions | None = None


def serve(
    slides: Collection,
    predictions: Predictions | None,
    truth: str,
    options: ViewOptions,
    *,
    ready: Callable[[str], None],
) -> None:
    """Serve collections until the process is interrupted.

    Parameters
    ----------
    slides, predictions, truth
        See `Catalog`.
    options
        Options of the server.
    ready
        Called with the page's URL just before the server starts.

    Raises
    ------
    StoreError
        If there is nothing to show.
    StoreNotFoundError
        If OpenSeadragon was not bundled.
    ConfigError
        If the server cannot listen on the address.
    """
    app, token = prepare(slides, predictions, truth, options)
    listener = listening(options)
    shared_cache().resize(_CACHE_BYTES)
    port = listener.getsockname()[1]
    query = "" if token is None else f"?token={token}"
    ready(f"http://{_url_host(options.host)}:{port}/{query}")
    settings = uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C stops the server
        uvicorn.Server(settings).run(sockets=[listener])


def prepare(
    slides: Collection, predictions: Predictions | None, truth: str, options: ViewOptions
) -> tuple[Starlette, str | None]:
    """Make the application, and its token if it requires one; see `serve`."""
    if not LIBRARY.is_file():
        raise StoreNotFoundError(
            f"the viewer lacks {LIBRARY.name}, which packages include; in a checkout, run "
            "`make viewer`"
        )
    catalog = Catalog(slides, predictions, truth)
    catalog.require_slides()
    if options.review is not None and options.review.exists() and not options.review.is_dir():
        raise OutputError(f"{options.review} is a file; expected a folder for reviews")
    token = None if options.host in LOOPBACK else secrets.token_urlsafe(24)
    sam = None
    if options.sam is not None:
        from wsi_seg.models.promptable import Promptable  # torch is slow to import

        sam = Promptable(options.sam)
    app = make_app(
        catalog,
        review=options.review,
        token=token,
        framed=options.framed,
        weight=options.weight,
        sam=sam,
    )
    if options.other is not None:
        other = Catalog(slides, options.other, truth)
        other.require_slides()
        second = make_app(other, review=None, token=token, framed=options.framed)
        app = make_pair(app, second, token=token, framed=options.framed)
    return app, token


def _url_host(host: str) -> str:
    """Return a host as URLs spell it; the name of this machine if it listens on all addresses."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def listening(options: ViewOptions) -> socket.socket:
    """Open a listening socket; see `serve`."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is given; without it, responses wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {options.host} port {options.port}: {error}; choose another --port"
        ) from error
    return listener
