"""Owns the viewer's HTTP routes: slides, tiles, values, objects, outlines and reviews."""

import logging
import math
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from wsi_seg.cores import available_cores
from wsi_seg.errors import (
    AnnotationError,
    BusyError,
    OutputError,
    RegionError,
    StoreNotFoundError,
    WsiSegError,
)
from wsi_seg.evaluation.cautions import cautions
from wsi_seg.evaluation.next_places import slide_places
from wsi_seg.reading.thumbnail import thumbnail_extent
from wsi_seg.store import read_thumbnail
from wsi_seg.viewer.auth import AuthMiddleware
from wsi_seg.viewer.catalog import Catalog
from wsi_seg.viewer.review_routes import get_review, post_click, post_shapes, put_review
from wsi_seg.viewer.slide_cache import SlideCache
from wsi_seg.viewer.tiles import Tile, encode_jpeg

if TYPE_CHECKING:
    from wsi_seg.models.promptable import Promptable

logger = logging.getLogger(__name__)

STATIC = Path(str(files("wsi_seg.viewer"))) / "static"

_THUMBNAIL_PX = 320

# Number of places to annotate next per slide, and their side.
_PLACES, _SIDE_UM = 20, 256.0

# Outlines sent for one view; with more, each would be only a few pixels wide.
_MAX_OUTLINES = 12_000

# Minimum number of threads for tiles; there is one per core if that is more.
_TILE_THREADS = 2
# Threads for other requests, separate because some are slow and would block tiles.
_OTHER_THREADS = 6

_MINUTE = {"Cache-Control": "private, max-age=60"}
_LONG = {"Cache-Control": "private, max-age=86400, immutable"}  # URLs contain the version


def make_app(
    catalog: Catalog,
    *,
    review: Path | None,
    token: str | None,
    framed: bool = False,
    weight: float = 1.0,
    sam: "Promptable | None" = None,
) -> Starlette:
    """Make the application for one collection and its predictions.

    Parameters
    ----------
    catalog
        Slides and predictions to show.
    review
        Folder of reviews; None makes the viewer read-only.
    token
        Secret that every request must present; None if the server listens on loopback only.
    framed
        Whether pages of this machine may embed the viewer in a frame.
    weight
        Weight of reviewed annotations in training, 0 to 1.
    sam
        Promptable model that outlines clicked objects; None disables clicks.
    """
    tiles = CapacityLimiter(max(_TILE_THREADS, available_cores()))
    others = CapacityLimiter(_OTHER_THREADS)
    routes = [
        Route("/", _page),
        Route("/slides", _answer(_slides, others)),
        Route("/slides/{slide}", _answer(_slide, others)),
        Route("/slides/{slide}/thumbnail", _answer(_thumbnail, others)),
        Route("/slides/{slide}/values", _answer(_values, others)),
        Route("/slides/{slide}/objects", _answer(_objects, others)),
        Route("/slides/{slide}/outlines", _answer(_outlines, others)),
        Route("/slides/{slide}/next", _answer(_next, others)),
        Route("/slides/{slide}/review", _answer(get_review, others), methods=["GET"]),
        Route("/slides/{slide}/review", put_review, methods=["PUT"]),
        Route("/slides/{slide}/click", post_click, methods=["POST"]),
        Route("/shapes", post_shapes, methods=["POST"]),
        Route(
            "/slides/{slide}/layers/{layer}/{level:int}/{row:int}/{column:int}",
            _answer(_tile, tiles),
        ),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(AuthMiddleware, token=token, framed=framed)],
        exception_handlers={WsiSegError: _failed, OSError: _failed},
    )
    app.state.cache = SlideCache(catalog, review, weight, sam)
    return app


def make_pair(
    first: Starlette, second: Starlette, *, token: str | None, framed: bool = False
) -> Starlette:
    """Make an application that shows two others side by side, under ``first/`` and ``second/``.

    Parameters
    ----------
    first, second
        Applications of `make_app` with the same token.
    token, framed
        See `make_app`.
    """
    routes = [
        Route("/", _pair_page),
        Mount("/static", StaticFiles(directory=STATIC)),
        Mount("/first", first),
        Mount("/second", second),
    ]
    guard = Middleware(AuthMiddleware, token=token, framed=framed)
    return Starlette(routes=routes, middleware=[guard])


Handler = Callable[[SlideCache, Request], Response]


def _answer(handler: Handler, limiter: CapacityLimiter) -> Callable[[Request], object]:
    """Run a blocking handler in a thread of the limiter."""

    async def endpoint(request: Request) -> Response:
        cache = request.app.state.cache
        return await to_thread.run_sync(handler, cache, request, limiter=limiter)

    return endpoint


async def _failed(request: Request, error: Exception) -> Response:
    """Turn an exception into a JSON response."""
    status = 422
    if isinstance(error, AnnotationError):
        status = 400
    elif isinstance(error, BusyError):
        status = 412  # the review was saved by another page since
    elif isinstance(error, OutputError):
        status = 507
    elif isinstance(error, StoreNotFoundError | RegionError | OSError):
        status = 404
    logger.warning("%d %s: %s", status, request.url.path, error)
    return JSONResponse({"error": str(error)}, status_code=status)


async def _page(request: Request) -> Response:
    return _html("index.html")


async def _pair_page(request: Request) -> Response:
    return _html("pair.html")


def _html(name: str) -> Response:
    page = (STATIC / name).read_bytes()
    return Response(page, media_type="text/html", headers={"Cache-Control": "no-cache"})


def _slides(cache: SlideCache, request: Request) -> Response:
    catalog = cache.catalog
    predicted = catalog.predictions
    return JSONResponse(
        {
            "title": catalog.slides.path.name,
            "prediction": None if predicted is None else predicted.path.name,
            "review": cache.review is not None,
            "sam": cache.sam is not None,
            "slides": list(catalog.names()),
        }
    )


def _slide(cache: SlideCache, request: Request) -> Response:
    name = request.path_params["slide"]
    view = cache.opened(name, fresh=True).view
    pyramid = view.slide.pyramid
    return JSONResponse(
        {
            "name": name,
            "height": pyramid.extent.height,
            "width": pyramid.extent.width,
            "mpp": pyramid.mpp,
            "predicted": view.found is not None,
            "compared": view.found is not None and view.true is not None,
            "warnings": [] if view.found is None else cautions(view.slide, view.found),
            "layers": [layer.to_json() for layer in view.layers.values()],
        }
    )


def _thumbnail(cache: SlideCache, request: Request) -> Response:
    image = cache.catalog.slide(request.path_params["slide"]).image
    pixels = read_thumbnail(image, thumbnail_extent(image.pyramid.extent, _THUMBNAIL_PX))
    return _picture(encode_jpeg(pixels), _MINUTE)


def _tile(cache: SlideCache, request: Request) -> Response:
    place = request.path_params
    layer = cache.opened(place["slide"]).view.layer(place["layer"])
    return _picture(layer.tile(place["level"], place["row"], place["column"]), _LONG)


def _values(cache: SlideCache, request: Request) -> Response:
    view = cache.opened(request.path_params["slide"]).view
    x, y = _numbers(request, ("x", "y"))
    extent = view.slide.pyramid.extent
    if not (0 <= x < extent.width and 0 <= y < extent.height):
        raise RegionError(f"got x={x:g}, y={y:g}; the slide has {extent}")
    values = {
        name: layer.value(y / extent.height, x / extent.width)
        for name, layer in view.layers.items()
    }
    return JSONResponse({name: value for name, value in values.items() if value is not None})


def _objects(cache: SlideCache, request: Request) -> Response:
    objects = cache.objects(request.path_params["slide"])
    return JSONResponse([item.to_json() | {"status": item.status} for item in objects.items])


def _outlines(cache: SlideCache, request: Request) -> Response:
    x, y, x_end, y_end, tolerance = _numbers(request, ("x", "y", "x_end", "y_end", "tolerance"))
    if x_end <= x or y_end <= y or tolerance < 0:
        raise RegionError("got an empty region; expected x < x_end, y < y_end, tolerance >= 0")
    name = request.path_params["slide"]
    of_truth = request.query_params.get("of") == "truth"
    objects = cache.truth(name) if of_truth else cache.objects(name)
    return JSONResponse(objects.outlines((x, y, x_end, y_end), tolerance, _MAX_OUTLINES))


def _next(cache: SlideCache, request: Request) -> Response:
    view = cache.opened(request.path_params["slide"]).view
    if view.found is None or view.found.saved == "labels":
        return JSONResponse([])
    label = cache.catalog.truth
    places = slide_places(view.found, view.slide, label=label, side_um=_SIDE_UM, count=_PLACES)
    return JSONResponse([{"box": list(p.box), "uncertainty": p.uncertainty} for p in places])


def _picture(tile: Tile, headers: dict[str, str]) -> Response:
    return Response(tile.data, media_type=tile.media_type, headers=headers)


def _numbers(request: Request, names: tuple[str, ...]) -> list[float]:
    """Read finite numbers from the query string.

    Raises
    ------
    RegionError
        If one is missing or is not a finite number.
    """
    values = []
    for name in names:
        try:
            value = float(request.query_params[name])
        except (KeyError, ValueError) as error:
            raise RegionError(f"expected a number {name!r} in the query") from error
        if not math.isfinite(value):
            raise RegionError(f"got {name}={value}; expected a finite number")
        values.append(value)
    return values
