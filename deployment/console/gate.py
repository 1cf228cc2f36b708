"""Who may see which page of the console: role to method and path, with sessions in the place of bearer headers.

The gate stands in front of the router, so a page that is added later is closed before anybody thinks of it. Knows roles
and paths; what a session is, is `sessions`' business, and what a member sees of a page is that of
`deployment.access.permissions`.
"""

import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deployment.access.audit_trail import Calls
from deployment.access.key_verifier import KeyChecks
from deployment.access.permissions import READERS, compile_rules, rule_for
from deployment.console.errors import page_of
from deployment.console.sessions import COOKIE, Sessions
from deployment.errors import (
    ApiError,
    ForbiddenError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    ledger_away,
)
from deployment.http.exception_handlers import to_api_error
from rewards.errors import KeyRefusedError, LedgerError, LedgerLostError
from rewards.keys.ring import KeyRing
from rewards.keys.rules import Key

PREFIX: Final = "/console"
OPEN: Final = ("anybody",)

_FIGURES: Final = ("member", *READERS)
_EVERYBODY: Final = ("application", *_FIGURES)

# As in `deployment.access.permissions`: the first line that fits decides, and a path that no line fits does not exist.
RULES: Final = (
    # methods           path                                    roles that may
    ("GET",             "/static/**",                           OPEN),
    ("GET POST",        "/sign-in",                             OPEN),
    ("POST",            "/sign-out",                            _EVERYBODY),
    ("GET",             "/",                                    _EVERYBODY),
    ("GET",             "/clients/**",                          _FIGURES),
    ("GET",             "/responses/*/proof",                   _FIGURES),
    ("GET",             "/responses/**",                        _EVERYBODY),
    ("POST",            "/responses/*/reversal",                ("operator",)),
    ("GET POST",        "/playground/**",                       ("application", "operator", "admin")),
    ("GET",             "/periods/preview",                     READERS),
    ("GET",             "/{periods|statements|rounds}/**",      _FIGURES),
    ("POST",            "/periods/**",                          ("operator",)),
    ("GET",             "/holds/**",                            READERS),
    ("POST",            "/holds/**",                            ("operator",)),
    ("GET POST",        "/trust/verify",                        READERS),
    ("GET",             "/trust/**",                            _FIGURES),
    ("POST",            "/trust/consistency",                   _FIGURES),
)  # fmt: skip

_PATTERNS: Final = compile_rules(RULES)


def roles_for(method: str, path: str) -> tuple[str, ...] | None:
    """The roles that may call a path of the console with `method`; None where there is no such page.

    Args:
        method: as in "GET".
        path: without the console's prefix.
    """
    rule = rule_for(_PATTERNS, method, path)
    return None if rule is None else rule.roles


class SessionGate:
    """ASGI middleware that lets a request through only with a session of the right role, which it notes in the state.

    What changes something, and what operators, auditors and admins look at, is written down in the ledger as calls of
    the operators' API are. What a role may not, and whatever an application does, is counted there.

    Args:
        app: the console behind the gate.
        keys: whose keys sessions stand for; each is looked up again, so a revoked key ends its sessions.
        sessions: what cookies are read with.
        calls: where calls are written down.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing,
        sessions: Sessions,
        calls: Calls,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._keys = KeyChecks(keys, keys.find_valid, clock)
        self._sessions = sessions
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a page that says why not, or with the way to the sign-in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        rule = rule_for(_PATTERNS, request.method, path)
        roles = None if rule is None else rule.roles
        if request.method != "GET" and _is_foreign(request):
            refusal = ForbiddenError("this request was sent by another site, and was refused", code="foreign_origin")
            await page_of(request, refusal)(scope, receive, send)
            return
        if roles == OPEN:
            await self._app(scope, receive, send)
            return
        try:
            key = await self._find_key(request)
        except UnavailableError as error:
            await page_of(request, error)(scope, receive, send)
            return
        if key is None:
            await _ask_to_sign_in(request)(scope, receive, send)
            return
        may = roles is not None and key.role in roles
        app = self._app if may else page_of(request, _refusal(roles, key))
        if request.method == "GET" and key.role not in READERS:
            await app(scope, receive, send)
        else:
            is_counted = not may or key.role == "application"
            route = f"{PREFIX}{'/**' if rule is None else rule.route}" if is_counted else None
            await self._calls.watch(app, key, scope, receive, send, route=route)

    async def _find_key(self, request: Request) -> Key | None:
        """The valid key of the request's session, noted in its state with the session; None when there is none."""
        session = self._sessions.read(request.cookies.get(COOKIE, ""))
        if session is None:
            return None
        try:
            key = await self._keys.find(session.key_id)
        except KeyRefusedError:
            return None
        except LedgerLostError as error:
            raise to_api_error(error) from error
        except LedgerError as error:
            raise ledger_away("the ledger is away, and your key cannot be checked; try again in a moment") from error
        request.state.key, request.state.csrf = key, self._sessions.csrf(session)
        return key


def _ask_to_sign_in(request: Request) -> Response:
    if request.method != "GET":
        return page_of(request, UnauthenticatedError("your session has ended: sign in again", code="no_session"))
    wanted = quote(request.scope["path"]) + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{PREFIX}/sign-in?next={quote(wanted, safe='')}", status_code=303)


def _refusal(roles: tuple[str, ...] | None, key: Key) -> ApiError:
    if roles is None:
        return NotFoundError("there is no such page", code="unknown_route")
    return ForbiddenError(
        f"this page is for keys of role {', '.join(roles)}; yours has role {key.role}", code="wrong_role"
    )


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that another site sent this. Another program says nothing, and has no cookie to abuse."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = request.headers.get("origin")
    try:
        return origin is not None and _host(urlsplit(origin).netloc) != _host(request.headers.get("host", ""))
    except ValueError:  # no URL at all, as in "http://["
        return True


def _host(netloc: str) -> str:
    """A host as it is compared: in small letters, without a port that goes without saying."""
    return re.sub(":(80|443)$", "", netloc.lower())
