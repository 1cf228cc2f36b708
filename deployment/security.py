"""Who may call what, and how much they may send: bearer key to role to route. Only `GET /health` is open.

The gate stands in front of the router, so a route that is added later is closed before anybody thinks of it.
Knows roles and paths; how keys are made and checked is `rewards.keys`.
"""

import asyncio
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.errors import ApiError, ForbiddenError, UnauthenticatedError
from deployment.failures import answer
from rewards.keys import Key, KeyRing

__all__ = ["MAX_BODY_BYTES", "OPEN_ROUTES", "BodyLimit", "Gate", "caller", "role_of"]

MAX_BODY_BYTES: Final = 1024 * 1024

OPEN_ROUTES: Final = frozenset({("GET", "/health")})

ROLE_OF_PREFIX: Final = (
    ("/v1/", "application"),
    ("/api/v1/", "operator"),
    ("/openapi.json", "operator"),
)
"""The role that each part of the service asks for. A path outside takes any good key, and is then not found."""


def role_of(path: str) -> str | None:
    """The role that `path` asks for, or None where any good key will do."""
    return next((role for prefix, role in ROLE_OF_PREFIX if path.startswith(prefix)), None)


def caller(request: Request) -> Key:
    """The key that the gate let in."""
    key = request.state.key
    assert isinstance(key, Key), "a route was reached without the gate"
    return key


class Gate:
    """ASGI middleware that lets a request through only with a key of the right role, which it notes in the state."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403 in OpenAI's shape."""
        if scope["type"] == "lifespan" or (scope.get("method"), scope["path"]) in OPEN_ROUTES:
            await self._app(scope, receive, send)
            return
        try:
            key = await self._admit(HTTPConnection(scope))
        except ApiError as error:
            await answer(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = key
        await self._app(scope, receive, send)

    async def _admit(self, connection: HTTPConnection) -> Key:
        scheme, _, presented = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            raise UnauthenticatedError(
                "no API key was given: send `Authorization: Bearer ptk_…` (made by `protoken keys create`)",
                code="missing_api_key",
            )
        key = await asyncio.to_thread(self._keys.verify, presented.strip())
        if key is None:
            raise UnauthenticatedError("the API key is not known, or it was revoked", code="invalid_api_key")
        needed = role_of(connection.url.path)
        if needed not in (None, key.role):
            raise ForbiddenError(
                f"this needs a key of role {needed!r}; the key {key.key_id} has role {key.role!r}", code="wrong_role"
            )
        return key


class BodyLimit:
    """ASGI middleware that refuses a body above MAX_BODY_BYTES, declared or streamed, before it is held in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a body that is counted as it comes; too much of it raises 413 where it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        size = int(declared) if declared.isdecimal() else 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += 0 if declared else len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
            return message

        await self._app(scope, counted, send)
