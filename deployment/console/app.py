"""The console as a FastAPI app of its own, mounted at `/console`: pages, gate, errors, static files. Holds no page."""

import hmac
from pathlib import Path
from typing import Final

from fastapi import Depends, FastAPI, Request
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles

from deployment.access.audit_trail import Calls
from deployment.books.books import Books
from deployment.console.errors import handle_failures, last_resort
from deployment.console.figures.audits import Audits
from deployment.console.figures.snapshot import Figures
from deployment.console.gate import PREFIX, SessionGate, roles_for
from deployment.console.pages import (
    clients,
    holds,
    overview,
    periods,
    playground,
    responses,
    rounds,
    sign_in,
    statements,
    trust,
)
from deployment.console.rendering import PAGES
from deployment.console.sessions import Sessions
from deployment.errors import ForbiddenError
from deployment.gateway.service import Service
from deployment.http.exception_handlers import LastResort
from deployment.http.page_headers import PageHeaders
from deployment.retention.texts import Texts

_SIGN_IN: Final = "/sign-in"
_STATIC: Final = Path(__file__).with_name("static")


def build_console(service: Service, books: Books, texts: Texts | None, calls: Calls) -> FastAPI:
    """The console's app.

    Args:
        service: the engine, and what makes answers.
        books: the ledger, and who may sign in.
        texts: where finished texts are kept; None where none are.
        calls: where calls are written down.
    """
    sessions = Sessions(books.keys)
    app = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_require_form_token)],
        middleware=[
            Middleware(PageHeaders),
            Middleware(LastResort, answered=last_resort),
            Middleware(SessionGate, keys=books.keys, sessions=sessions, calls=calls),
        ],
    )
    app.state.service, app.state.books, app.state.texts = service, books, texts
    app.state.calls = calls
    app.state.sessions, app.state.figures = sessions, Figures(books.ledger)
    app.state.audits = Audits(books.ledger.database.url)
    app.state.navigation = _navigation
    for part in (sign_in, overview, clients, responses, periods, holds, statements, rounds, trust, playground):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=_STATIC))
    handle_failures(app)
    return app


def _navigation(role: str) -> list[tuple[str, str]]:
    """Path and title of each page that keys of a role may see."""
    return [(path, title) for path, title in PAGES if role in (roles_for("GET", path) or ())]


async def _require_form_token(request: Request) -> None:
    """Refuse whatever is to change something and does not carry the token of this session.

    The sign-in has no session yet; that no other site sends it, the gate sees to.
    """
    if request.method == "GET" or request.url.path == PREFIX + _SIGN_IN:
        return
    given = request.headers.get("x-csrf-token")
    if given is None and "form" in request.headers.get("content-type", ""):
        given = str((await request.form()).get("csrf", ""))
    if given is None or not hmac.compare_digest(given.encode(errors="replace"), request.state.csrf.encode()):
        raise ForbiddenError(
            "this form is of another session, or of none: open the page again and send it from there", code="csrf"
        )
