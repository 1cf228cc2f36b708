"""HTTP as callers speak it: HEAD, HTTP/1.0, bodies in another form, and pages of other origins.

ASGI middleware that knows the protocol and no route but the console's, which has forms and an origin of its own.
"""

import email.message
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.errors import UnsupportedMediaError
from deployment.http.exception_handlers import answer

CONSOLE: Final = "/console"
_READABLE: Final = (
    "Idempotency-Replayed", "Location", "Retry-After", "x-request-id", "x-should-retry",
)  # fmt: skip
_PREFLIGHT_S: Final = 600


def is_console(scope: Scope) -> bool:
    """Whether a request is one to the console."""
    return scope["type"] == "http" and f"{scope['path']}/".startswith(f"{CONSOLE}/")


class Heads:
    """HEAD is GET without the body (RFC 9110, section 9.3.2): whatever answers the one answers the other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a HEAD on as a GET; of its answer, only the status and the headers go out."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


class WholeAnswers:
    """HTTP/1.0 knows no chunks (RFC 9112, section 7.1): who speaks it gets each answer whole, with its length.

    The server would send chunks all the same. A stream waits for its end here, as such a caller cannot tell.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; collect the answer of an HTTP/1.0 caller that does not say its length."""
        if scope["type"] != "http" or scope["http_version"] != "1.0":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and "content-length" not in Headers(scope=message):
                start = message
            elif message["type"] == "http.response.body" and start is not None:
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    body = b"".join(parts)
                    MutableHeaders(scope=start)["content-length"] = str(len(body))
                    await send(start)
                    await send({"type": "http.response.body", "body": body})
            else:
                await send(message)

        await self._app(scope, receive, collect)


class JsonBodies:
    """Refuses, before it is read, a body that is no JSON by its own headers: 415, and what would be right."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on requests without a body, and those whose body is plain JSON; the console has forms."""
        refusal = None if scope["type"] != "http" or is_console(scope) else _refusal(Headers(scope=scope))
        app = self._app if refusal is None else answer(refusal)
        await app(scope, receive, send)


def _refusal(headers: Headers) -> UnsupportedMediaError | None:
    """Why a body cannot be read; None where it can, or where there is none."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return None
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        return UnsupportedMediaError(
            f"the body is encoded as {encoding!r}: send it plain, without Content-Encoding",
            param="Content-Encoding",
            code="unsupported_content_encoding",
            accept=("Accept-Encoding", "identity"),
        )
    given = headers.get("content-type", "")
    if given and _is_json(given):
        return None
    kind = f"is {given!r}" if given else "is missing"
    return UnsupportedMediaError(
        f"Content-Type {kind}: send JSON, with `Content-Type: application/json`",
        param="Content-Type",
        code="unsupported_content_type",
        accept=("Accept-Post", "application/json"),
    )


def _is_json(content_type: str) -> bool:
    message = email.message.Message()
    message["content-type"] = content_type
    kind = message.get_content_subtype()
    charset = message.get_content_charset("utf-8")
    return (
        message.get_content_maintype() == "application"
        and (kind == "json" or kind.endswith("+json"))
        and charset in {"utf-8", "utf8", "us-ascii"}
    )


class CrossOrigin:
    """Lets pages of the named origins read the API (CORS); a preflight carries no key, so this stands before the gate.

    Args:
        app: what is called.
        origins: as browsers spell them, `https://app.example`, or `*` for every one; none changes nothing.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        # No credentials: keys come in a header that the page must have; the console's cookies are for its own pages.
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=_READABLE,
            max_age=_PREFLIGHT_S,
        )
        self._is_open = bool(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, and name the origin in answers; the console is nobody else's to read."""
        app = self._shared if self._is_open and not is_console(scope) else self._app
        await app(scope, receive, send)
