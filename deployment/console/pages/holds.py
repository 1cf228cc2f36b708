"""`/holds`: what is not to be paid for the time being, placed and released.

What a hold does, `rewards.periods.holds` says.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from deployment.books.books import Books
from deployment.books.holds import all_holds, place_hold, release_hold
from deployment.books.settlement_table import names_in
from deployment.console.dependencies import TheBooks
from deployment.console.moves import Refusal, attempt
from deployment.console.rendering import TheViewer, redirect, render
from deployment.schemas.holds import Hold, HoldRequest, Release

router = APIRouter()

Text = Annotated[str, Form()]


@router.get("/holds")
def list_page(
    request: Request, books: TheBooks, kind: Literal["client", "response"] = "client", target: str = ""
) -> HTMLResponse:
    """Every hold, the active ones first, and the form for another; a link may say what it is to be on."""
    return _page(request, books, kind=kind, target=target)


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

    def move() -> Hold:
        form = HoldRequest.model_validate({"kind": kind, "target": target.strip(), "reason": reason})
        return place_hold(books, form.kind, form.target, form.reason, viewer.key.key_id)

    hold = attempt(move, confirmed)
    if isinstance(hold, Refusal):
        return _page(request, books, kind=kind, target=target, reason=reason, refusal=hold)
    return redirect(request, "/holds", f"{hold.id} is placed on {hold.kind} {hold.target}.")


@router.post("/holds/{hold_id}/release")
def release(
    request: Request, viewer: TheViewer, books: TheBooks, hold_id: str, reason: Text = "", confirmed: Text = ""
) -> Response:
    """End a hold."""

    def move() -> Hold:
        return release_hold(books, hold_id, Release(reason=reason).reason, viewer.key.key_id)

    hold = attempt(move, confirmed)
    if isinstance(hold, Refusal):
        return _page(request, books, refusal=hold)
    return redirect(request, "/holds", f"{hold.id} on {hold.kind} {hold.target} is released.")


def _page(
    request: Request,
    books: Books,
    *,
    kind: str = "client",
    target: str = "",
    reason: str = "",
    refusal: Refusal | None = None,
) -> HTMLResponse:
    holds = all_holds(books)
    return render(
        request,
        "holds.html",
        200 if refusal is None else refusal.status,
        active=[hold for hold in holds if hold.released_at_us is None],
        released=[hold for hold in holds if hold.released_at_us is not None][::-1],
        names=names_in(books.ledger),
        kind=kind,
        target=target,
        reason=reason,
        problem=None if refusal is None else refusal.problem,
    )
