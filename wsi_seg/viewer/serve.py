"""Owns serving: checks what is to be shown, picks address and token, runs until it is stopped."""

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

# Decoded chunks that the server keeps: about two screens of tiles of every layer.
_CACHE_BYTES = 96 * 2**20


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """How the viewer is served.

    Parameters
    ----------
    host
        Address to listen on. Any but loopback needs a token, which is then made.
    port
        0 picks a free one.
    review
        Folder that reviews are written to; None allows no writing.
    framed
        Whether pages of this machine, such as a notebook, may show the viewer in a frame.
    weight
        How much what is reviewed counts in training, 0 to 1.
    sam
        Decoder of a promptable model, with its encoder next to it; see
        `wsi_seg.models.promptable`. None outlines nothing by a click.
    other
        Predictions that are shown next to the first, and not reviewed; None shows one.
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
        Address and review folder.
    ready
        Told the page's address just before requests are answered.

    Raises
    ------
    StoreError
        If there is nothing to show.
    StoreNotFoundError
        If the page's library was not bundled.
    ConfigError
        If the address cannot be listened on.
    """
    app, token = prepare(slides, predictions, truth, options)
    listener = listening(options)
    shared_cache().resize(_CACHE_BYTES)
    port = listener.getsockname()[1]
    ready(f"http://{_shown(options.host)}:{port}/" + ("" if token is None else f"?token={token}"))
    settings = uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        uvicorn.Server(settings).run(sockets=[listener])


def prepare(
    slides: Collection, predictions: Predictions | None, truth: str, options: ViewOptions
) -> tuple[Starlette, str | None]:
    """Application and token for these options; see `serve`."""
    if not LIBRARY.is_file():
        raise StoreNotFoundError(
            f"the viewer's page lacks {LIBRARY.name}, which packages carry and a checkout gets by "
            "`make viewer`"
        )
    catalog = Catalog(slides, predictions, truth)
    catalog.require_slides()
    if options.review is not None and options.review.exists() and not options.review.is_dir():
        raise OutputError(f"{options.review} is a file; expected a folder for reviews")
    token = None if options.host in LOOPBACK else secrets.token_urlsafe(24)
    sam = None
    if options.sam is not None:
        from wsi_seg.models.promptable import Promptable  # torch is slow to load

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


def _shown(host: str) -> str:
    """Name of this machine as an address spells it; where all addresses are meant, its own."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def listening(options: ViewOptions) -> socket.socket:
    """Socket that listens where the options say; see `serve`."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio sends at once, without waiting 40 ms for company, only where TCP is named here.
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
