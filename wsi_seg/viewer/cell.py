"""Owns showing the viewer in a notebook cell: the server in a thread, the page in an iframe."""

import html
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from wsi_seg.errors import StoreError
from wsi_seg.store import Collection, Predictions, open_collection, open_predictions
from wsi_seg.viewer.serve import ViewOptions, listening, prepare

_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Viewer:
    """Viewer in a notebook cell; made by `view`.

    Parameters
    ----------
    address
        URL of the page, which only this machine can open.
    height_px
        Height of the iframe in pixels.
    server
        Running server.

    Examples
    --------
    >>> shown = view("store.zarr")  # doctest: +SKIP
    >>> shown.close()  # doctest: +SKIP
    """

    address: str
    height_px: int
    server: uvicorn.Server

    def close(self) -> None:
        """Stop the server; the cell becomes blank."""
        self.server.should_exit = True

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{html.escape(self.address)}" title="wsi_seg viewer" '
            f'height="{self.height_px}" style="width:100%;border:thin solid #8888"></iframe>'
        )


def view(
    slides: Collection | Path | str,
    predictions: Predictions | Path | str | None = None,
    *,
    other: Predictions | Path | str | None = None,
    truth: str = "annotations",
    review: Path | str | None = None,
    weight: float = 1.0,
    sam: Path | str | None = None,
    height_px: int = 640,
) -> Viewer:
    """Show slides and predictions in a notebook cell, as ``wsi-seg view`` does in a browser.

    The server listens on loopback, so the browser must run on the same machine as the notebook.

    Parameters
    ----------
    slides
        Collection of slides, or its path.
    predictions
        Predictions of the slides, or their path; None shows the slides only.
    other
        Other predictions, or their path, to show side by side with the first; None shows one.
    truth
        Name of the ground-truth label.
    review
        Folder of reviews; None makes the viewer read-only.
    weight
        Weight of reviewed annotations in training, 0 to 1.
    sam
        ONNX decoder of a promptable model, with its encoder next to it, which outlines clicked
        objects; None disables clicks.
    height_px
        Height of the iframe in pixels.

    Returns
    -------
    Viewer
        Object that the cell displays; it serves until `Viewer.close`, or until the kernel ends.

    Raises
    ------
    StoreError
        If there is nothing to show, or the server does not start.
    StoreNotFoundError
        If OpenSeadragon was not bundled.

    Examples
    --------
    >>> wsi_seg.view("store.zarr", "pred.zarr")  # doctest: +SKIP
    """
    options = ViewOptions(
        port=0,
        review=None if review is None else Path(review),
        framed=True,
        weight=weight,
        sam=None if sam is None else Path(sam),
        other=_opened(other),
    )
    seen = slides if isinstance(slides, Collection) else open_collection(slides)
    app, _ = prepare(seen, _opened(predictions), truth, options)
    listener = listening(options)
    settings = uvicorn.Config(app, log_level="warning", log_config=None, access_log=False)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    end = time.monotonic() + _START_SECONDS
    while not server.started:
        if time.monotonic() > end or not thread.is_alive():
            raise StoreError("the viewer did not start; run `wsi-seg view` to see why")
        time.sleep(0.01)
    port = listener.getsockname()[1]
    return Viewer(f"http://{options.host}:{port}/", height_px, server)


def _opened(predictions: Predictions | Path | str | None) -> Predictions | None:
    if predictions is None or isinstance(predictions, Predictions):
        return predictions
    return open_predictions(predictions)
