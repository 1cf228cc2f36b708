"""What every page tells a browser: what it may load, and who may frame, keep or reinterpret it."""

from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageHeaders:
    """ASGI middleware: no page is framed, cached or taken for something else, unless it says otherwise itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers that the answer does not have."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] == 200 and _is_versioned(scope):
                    headers["Cache-Control"] = "public, max-age=31536000, immutable"
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _is_versioned(scope: Scope) -> bool:
    """Whether a static file was asked for by the hash of its content."""
    return "/static/" in scope["path"] and "v" in parse_qs(scope["query_string"].decode("latin-1"))
