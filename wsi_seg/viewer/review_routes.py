"""Owns the HTTP routes of reviews: reading, conditional saving, editing shapes."""

import json
import logging

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from wsi_seg.errors import AnnotationError, StoreNotFoundError
from wsi_seg.viewer.clicks import Click, outlined
from wsi_seg.viewer.review import MAX_BYTES, Review, read_review, review_version, write_review
from wsi_seg.viewer.shapes import Edit, edited
from wsi_seg.viewer.slide_cache import SlideCache

logger = logging.getLogger(__name__)


def get_review(cache: SlideCache, request: Request) -> Response:
    """Return the review of a slide, with its version as ETag."""
    name = request.path_params["slide"]
    path = cache.review_file(name)
    version = review_version(path)  # before reading, so that a change in between is detected
    review = read_review(path, cache.objects(name).items)
    return JSONResponse(review.model_dump(), headers={"ETag": f'"{version}"'})


async def put_review(request: Request) -> Response:
    """Save a review if the version in If-Match is still current."""
    body = await _body(request)
    if body is None:
        return _too_large(request)
    return await run_in_threadpool(_write, request.app.state.cache, request, body)


async def post_shapes(request: Request) -> Response:
    """Edit shapes by a stroke, and return them without saving."""
    if request.app.state.cache.review is None:
        raise StoreNotFoundError("this viewer was started without --review")
    body = await _body(request)
    return _too_large(request) if body is None else await run_in_threadpool(_edit, body)


async def post_click(request: Request) -> Response:
    """Outline the clicked object with the promptable model."""
    body = await _body(request)
    if body is None:
        return _too_large(request)
    return await run_in_threadpool(_click, request.app.state.cache, request, body)


def _click(cache: SlideCache, request: Request, body: bytes) -> Response:
    if cache.sam is None:
        raise StoreNotFoundError("this viewer was started without --sam")
    slide = cache.opened(request.path_params["slide"]).view.slide
    return JSONResponse({"rings": outlined(cache.sam, slide, _parsed(Click, body, "click"))})


async def _body(request: Request) -> bytes | None:
    """Read the body of a request; return None as soon as it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            return None
    return body


def _too_large(request: Request) -> Response:
    logger.warning("413 %s: more than %d bytes", request.url.path, MAX_BYTES)
    return JSONResponse({"error": f"more than {MAX_BYTES} bytes"}, status_code=413)


def _write(cache: SlideCache, request: Request, body: bytes) -> Response:
    name = request.path_params["slide"]
    path = cache.review_file(name)
    review = _parsed(Review, body, f"review of {name}")
    version = request.headers.get("if-match", "").strip('"')
    if not version:
        raise AnnotationError(
            f"review of {name}: got no If-Match header; expected the version to replace"
        )
    objects = cache.objects(name).items
    saved = write_review(path, review, objects, over=version, weight=cache.weight)
    return JSONResponse({"file": path.name}, headers={"ETag": f'"{saved}"'})


def _edit(body: bytes) -> Response:
    return JSONResponse({"shapes": edited(_parsed(Edit, body, "edit"))})


def _parsed[M: BaseModel](model: type[M], body: bytes, what: str) -> M:
    try:
        return model.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise AnnotationError(f"{what}: {place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{what}: got invalid JSON; expected that of the page") from error
