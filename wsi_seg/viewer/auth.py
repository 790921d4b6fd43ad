"""Owns access control: allowed hosts, the token, origins, and security headers."""

import hmac
import logging
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_COOKIE = "wsi-seg-token"

# Resources of this server only, and images that the page itself creates.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
)
_OUR_FRAMES = "frame-ancestors 'self'"  # two predictions side by side
_NOTEBOOKS = f"{_OUR_FRAMES} http://localhost:* http://127.0.0.1:*"  # notebooks of this machine
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class AuthMiddleware:
    """Allows requests from loopback or with the token, and writes from the viewer's own page only.

    Parameters
    ----------
    app
        Application to guard.
    token
        Secret that the browser sends once in the URL and then as a cookie; None if the server
        listens on loopback only.
    framed
        Whether pages of this machine may embed the viewer in a frame.
    """

    def __init__(self, app: ASGIApp, token: str | None, framed: bool = False) -> None:
        self._app = app
        self._token = token
        policy = _POLICY + (_NOTEBOOKS if framed else _OUR_FRAMES)
        self._headers = {"Content-Security-Policy": policy, **_HEADERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        request = Request(scope)
        answer = self._refusal(request) or self._login(request) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        if self._token is None and host not in LOOPBACK:
            # DNS rebinding: a foreign page whose name resolves to this machine sends that name.
            return _refused(request, "the host must be 127.0.0.1 or localhost")
        if self._token is not None and not self._has_token(request):
            return _refused(request, "open the URL with its token, as printed by the command")
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            if origin is None or urlsplit(origin).netloc != request.headers.get("host"):
                return _refused(request, "only the viewer's own page may write")
        return None

    def _has_token(self, request: Request) -> bool:
        given = request.query_params.get("token") or request.cookies.get(_COOKIE) or ""
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    def _login(self, request: Request) -> Response | None:
        """Move the token from the URL to a cookie, so that a copied link does not contain it."""
        if self._token is None or "token" not in request.query_params:
            return None
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
        return response


def _refused(request: Request, reason: str) -> JSONResponse:
    logger.warning("refused %s %s: %s", request.method, request.url.path, reason)
    return JSONResponse({"error": reason}, status_code=403)
