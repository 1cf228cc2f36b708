"""`/holds`: what is not to be paid for the time being, placed and released.

What a hold does, `rewards.periods.holds` says.
"""

from collections.abc import Callable
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import ValidationError

from deployment.api.dependencies import TheBooks
from deployment.api.routes import holds
from deployment.books.books import Books
from deployment.console.figures.settlement_table import names_in
from deployment.console.rendering import TheViewer, redirect, render
from deployment.errors import ApiError
from deployment.http.failures import told
from deployment.schemas.holds import Hold, HoldRequest, Release
from rewards.errors import HoldError

__all__ = ["router"]

router = APIRouter()

_MOST: Final = 1000

Text = Annotated[str, Form()]


@router.get("/holds")
def list_page(
    request: Request, books: TheBooks, kind: Literal["client", "response"] = "client", target: str = ""
) -> HTMLResponse:
    """Every hold, the active ones first, and the form for another; a link may say what it is to be on."""
    return _listed(request, books, kind=kind, target=target)


@router.post("/holds")
def place(
    request: Request,
    viewer: TheViewer,
    books: TheBooks,
    kind: Text = "",
    target: Text = "",
    reason: Text = "",
    confirmed: Text = "",
) -> Response:
    """Place a hold."""

    def act() -> Hold:
        asked = HoldRequest.model_validate({"kind": kind, "target": target.strip(), "reason": reason})
        return holds.place(books, viewer.key, asked)

    done = _done(act, confirmed)
    if isinstance(done, Hold):
        return redirect(request, "/holds", f"{done.id} is placed on {done.kind} {done.target}.")
    problem, status = done
    return _listed(request, books, kind=kind, target=target, reason=reason, problem=problem, status=status)


@router.post("/holds/{hold_id}/release")
def release(
    request: Request, viewer: TheViewer, books: TheBooks, hold_id: str, reason: Text = "", confirmed: Text = ""
) -> Response:
    """End a hold."""

    def act() -> Hold:
        return holds.release(books, viewer.key, hold_id, Release(reason=reason))

    done = _done(act, confirmed)
    if isinstance(done, Hold):
        return redirect(request, "/holds", f"{done.id} on {done.kind} {done.target} is released.")
    problem, status = done
    return _listed(request, books, problem=problem, status=status)


def _done(act: Callable[[], Hold], confirmed: str) -> Hold | tuple[str, int]:
    """The hold as it is then; or why nothing was done, and the status that this has."""
    if not confirmed:
        return "Nothing was done: tick the box to confirm it.", 400
    try:
        return act()
    except ValidationError as error:
        fault = error.errors()[0]
        return f"Nothing was done: {fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}.", 400
    except (ApiError, HoldError) as error:
        refusal = told(error)
        return f"Nothing was done: {refusal.message}.", refusal.status


def _listed(
    request: Request,
    books: Books,
    *,
    kind: str = "client",
    target: str = "",
    reason: str = "",
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    found = _every(books)
    return render(
        request,
        "holds.html",
        status,
        active=[hold for hold in found if hold.released_at_us is None],
        released=[hold for hold in found if hold.released_at_us is not None][::-1],
        names=names_in(books),
        kind=kind,
        target=target,
        reason=reason,
        problem=problem,
    )


def _every(books: Books) -> list[Hold]:
    """All holds, in the order of placing."""
    found: list[Hold] = []
    cursor = None
    while True:
        page = holds.holds(books, holds.HoldFilters(active=None, limit=_MOST, cursor=cursor))
        found += page.data
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor
