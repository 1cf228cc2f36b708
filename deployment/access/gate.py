"""The gate before every route: a key of the right role comes in, and a body that is not too large.

The gate stands in front of the router, so a route that is added later is closed before anybody thinks of it.
Which role may call what is told in `permissions`; how keys are made and checked is `rewards.keys.ring`.
"""

import time
from collections.abc import Callable
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.access.audit_trail import Calls
from deployment.access.key_verifier import KeyChecks
from deployment.access.limits import Limits
from deployment.access.permissions import OPEN_ROUTES, rule_of, visible_to
from deployment.errors import (
    ApiError,
    ForbiddenError,
    NotFoundError,
    OverloadedError,
    UnauthenticatedError,
    ledger_away,
)
from deployment.health.faults import Watch
from deployment.http.exception_handlers import answer, to_api_error
from deployment.http.protocol import is_console
from rewards.errors import KeyRefusedError, LedgerError, LedgerLostError
from rewards.keys.ring import KeyRing
from rewards.keys.rules import Key

MAX_BODY_BYTES: Final = 1024 * 1024

_APPLICATIONS: Final = "/v1/"
_AUDITED: Final = "/api/v1/"


def caller(request: Request) -> Key:
    """The key that the gate let in."""
    key = request.state.key
    assert isinstance(key, Key), "a route was reached without the gate"
    return key


def visible_client(request: Request) -> str | None:
    """The one client whose figures the caller may see, for a member's key; None for whoever may see all of them.

    The only place where this is decided: from the key, never from what was asked for.
    """
    return visible_to(caller(request))


class Gate:
    """ASGI middleware that lets a request through only with a key of the right role, which it notes in the state.

    Calls of the operators' API are written down in the ledger, and those that a role may not make are counted there.

    Args:
        app: what is behind the gate.
        keys: who may pass.
        calls: where calls are written down.
        limits: how often an application may be refused.
        clock: seconds that never go back.
        watch: while it finds something lost, applications are refused; all are while that is the ledger.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing,
        calls: Calls,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        watch: Watch | None = None,
    ) -> None:
        self._app = app
        self._keys = KeyChecks(keys, keys.check, clock)
        self._calls = calls
        self._limits = limits
        self._watch = watch or Watch({})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403, 404 or 503 in OpenAI's shape."""
        is_open = scope["type"] == "lifespan" or (scope.get("method"), scope["path"]) in OPEN_ROUTES
        if is_open or is_console(scope):  # the console has a gate of its own, with sessions in the place of headers
            await self._app(scope, receive, send)
            return
        try:
            self._watch.require(None if scope["path"].startswith(_APPLICATIONS) else "ledger")
            key = await self._find_key(Headers(scope=scope).get("authorization", ""))
        except ApiError as error:
            await answer(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["key"] = key
        refusal = self._refusal(key, scope.get("method", "WEBSOCKET"), scope["path"])
        if refusal is not None:
            await answer(refusal)(scope, receive, send)
        elif scope["path"].startswith(_AUDITED):
            await self._calls.watch(self._app, key, scope, receive, send, refused_as=_route_of_refusal(key, scope))
        else:
            await self._app(scope, receive, send)

    def _refusal(self, key: Key, method: str, path: str) -> ApiError | None:
        """Why `key` may not make this call, which is counted unless it asks too often; None when it may."""
        rule = rule_of(method, path)
        if rule is not None and key.role in rule.roles:
            return None
        try:
            self._limits.take(key)
        except OverloadedError as error:
            return error
        if rule is None:
            return NotFoundError(f"there is no {method} {path} here", code="unknown_route")
        refusal = ForbiddenError(
            f"{method} {path} needs {_describe_need(rule.roles)}; the key {key.key_id} has role {key.role!r}",
            code="wrong_role",
        )
        if path.startswith(_AUDITED):
            self._calls.count(key, method, rule.route, refusal.status)
        return refusal

    async def _find_key(self, authorization: str) -> Key:
        """The valid key of an `Authorization` header."""
        scheme, _, presented = authorization.partition(" ")
        presented = presented.strip()
        if scheme.lower() != "bearer" or not presented:
            raise UnauthenticatedError(
                "no API key was given: send `Authorization: Bearer ptk_…` (made by `protoken keys create`)",
                code="missing_api_key",
            )
        try:
            return await self._keys.find(presented)
        except KeyRefusedError as error:
            raise UnauthenticatedError(str(error), code="invalid_api_key") from error
        except LedgerLostError as error:
            raise to_api_error(error) from error
        except LedgerError as error:
            raise ledger_away("the ledger is away, and this API key cannot be checked; try again") from error


def _route_of_refusal(key: Key, scope: Scope) -> str | None:
    """What a member's call that is refused after all is counted under; of who runs the service each is written down."""
    rule = rule_of(scope.get("method", "WEBSOCKET"), scope["path"]) if key.role == "member" else None
    return None if rule is None else rule.route


def _describe_need(roles: tuple[str, ...]) -> str:
    return f"a key of role {' or '.join(roles)}" if roles else "what no role may do"


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

        async def receive_counted() -> Message:
            nonlocal size
            message = await receive()
            size += 0 if declared else len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
            return message

        await self._app(scope, receive_counted, send)
