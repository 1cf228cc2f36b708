"""`/periods`: what was settled, what the open period would come to, and its moves, each of them asked twice.

Every figure and every move is the operator API's (`deployment.api.routes.periods`); what that refuses is told on the
page that was used. Settles nothing itself.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import ValidationError

from deployment.api.dependencies import TheBooks
from deployment.api.paging import Paging
from deployment.api.routes import periods, statements
from deployment.books.books import Books
from deployment.console.figures.settlement_table import names_in, table_of
from deployment.console.rendering import TheViewer, Viewer, redirect, render
from deployment.errors import ApiError, InvalidRequestError, NotFoundError
from deployment.http.failures import told
from deployment.schemas.fields import LARGEST
from deployment.schemas.periods import Close, Dispute, Finalise, Payment, Period, Terms
from rewards.errors import CreditError, PeriodError, PolicyError
from rewards.moments import DAY_US, moment_of, text_of
from rewards.periods.errors import PeriodClosedError
from rewards.settlement.policy import Policy
from rewards.store.database import now_us

__all__ = ["every", "router"]

router = APIRouter()

_REFUSALS: Final = (ApiError, PeriodError, PolicyError, CreditError)
_MOST: Final = 1000

Text = Annotated[str, Form()]
Moment = Annotated[int | None, Form(ge=0, le=2**63 - 1)]
Expected = Annotated[str, Form(pattern="^[0-9a-f]{64}$")]


@router.get("/periods")
def list_page(request: Request, viewer: TheViewer, books: TheBooks) -> HTMLResponse:
    """The closed periods, newest first, and the way to a preview of the open one."""
    found = every(books, viewer.visible)
    return render(
        request,
        "periods.html",
        periods=found[::-1],
        finalised_from={period.name: _finalised_from(period) for period in found},
        suggested=_suggested(found),
        has_policy=books.policy is not None,
        now=now_us(),
    )


@router.get("/periods/preview")
def preview_page(request: Request, books: TheBooks, name: str = "", until: str = "") -> HTMLResponse:
    """What closing a period would pay at this moment, or finalising where it is a draft."""
    return _previewed(request, books, name, until)


@router.post("/periods/close")
def close(
    request: Request,
    viewer: TheViewer,
    books: TheBooks,
    name: Text,
    expected: Expected,
    typed: Text = "",
    until: Text = "",
    until_us: Moment = None,
) -> Response:
    """Close what was previewed; where the books have moved since, show what it comes to now and ask again."""
    if typed.strip() != name:
        problem = f"Nothing was closed: to close it, type the period's name, {name}."
        return _previewed(request, books, name, until, problem, 400)
    asked = Close(until_us=until_us, expected_sha256=expected)
    try:
        closed = periods.close(books, viewer.key, name, asked)
    except PeriodClosedError:
        return redirect(request, _address(name), _closed_by_another(books, viewer, name))
    except _REFUSALS as error:
        return _previewed(request, books, name, until, f"Nothing was closed: {told(error).message}", 409)
    return redirect(request, _address(name), f"Period {name} is closed: it is {closed.state} now.")


@router.post("/periods/{name}/finalise")
def finalise(
    request: Request, viewer: TheViewer, books: TheBooks, name: str, expected: Expected, typed: Text = ""
) -> Response:
    """Make a draft final as it was previewed; where a hold has changed it since, show it and ask again."""
    if typed.strip() != name:
        problem = f"Nothing was finalised: to do so, type the period's name, {name}."
        return _previewed(request, books, name, "", problem, 400)
    try:
        periods.finalise(books, viewer.key, name, Finalise(expected_sha256=expected))
    except _REFUSALS as error:
        return _previewed(request, books, name, "", f"Nothing was finalised: {told(error).message}", 409)
    return redirect(request, _address(name), f"Period {name} is final; every client has its statement.")


@router.post("/periods/{name}/dispute")
def dispute(
    request: Request, viewer: TheViewer, books: TheBooks, name: str, reason: Text = "", confirmed: Text = ""
) -> Response:
    """Mark a draft as disputed."""

    def move() -> Period:
        return periods.dispute(books, viewer.key, name, Dispute(reason=reason))

    return _moved(request, viewer, books, name, move, confirmed, f"Period {name} is disputed.")


@router.post("/periods/{name}/pay")
def pay(
    request: Request, viewer: TheViewer, books: TheBooks, name: str, reference: Text = "", confirmed: Text = ""
) -> Response:
    """Note that a final period was paid."""

    def move() -> Period:
        return periods.pay(books, viewer.key, name, Payment(reference=reference))

    return _moved(request, viewer, books, name, move, confirmed, f"Period {name} is noted as paid.")


@router.get("/periods/{name}")
def detail_page(request: Request, viewer: TheViewer, books: TheBooks, name: str) -> HTMLResponse:
    """One closed period: its settlement, who moved it when, what can be done with it, and its statements."""
    return _detailed(request, viewer, books, name)


def every(books: Books, visible: str | None) -> list[Period]:
    """All closed periods, in their order, as a viewer may see them."""
    found: list[Period] = []
    cursor = None
    while True:
        page = periods.periods(books, visible, Paging(limit=_MOST, cursor=cursor))
        found += page.data
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


def _moved(
    request: Request,
    viewer: Viewer,
    books: Books,
    name: str,
    move: Callable[[], Period],
    confirmed: str,
    done: str,
) -> Response:
    """Make a move that was confirmed, and show the period with what came of it."""
    if not confirmed:
        return _detailed(request, viewer, books, name, "Nothing was done: tick the box to confirm it.", 400)
    try:
        move()
    except ValidationError as error:
        return _detailed(request, viewer, books, name, f"Nothing was done: {_fault(error)}.", 400)
    except _REFUSALS as error:
        refusal = told(error)
        if refusal.status == HTTPStatus.NOT_FOUND:
            raise
        return _detailed(request, viewer, books, name, f"Nothing was done: {refusal.message}.", refusal.status)
    return redirect(request, _address(name), done)


def _detailed(
    request: Request, viewer: Viewer, books: Books, name: str, problem: str | None = None, status: int = 200
) -> HTMLResponse:
    """The page of a closed period, perhaps with why what was asked of it was not done."""
    found = periods.period(books, viewer.visible, name)
    settlement = found.settlement
    own = [] if found.own is None else [found.own]
    filters = statements.StatementFilters(period=name, limit=_MOST)
    return render(
        request,
        "period.html",
        status,
        period=found,
        table=table_of(own if settlement is None else settlement.lines, names_in(books), settlement),
        statements=statements.list_statements(books, viewer.visible, filters),
        finalised_from=_finalised_from(found),
        now=now_us(),
        problem=problem,
    )


def _previewed(
    request: Request,
    books: Books,
    name: str,
    until: str,
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """The page of a preview: of a close, or of finalising a draft; or why there can be none."""
    draft = _closed(books, name)
    shown: dict[str, Any] = {"preview": None, "table": None, "until_us": None}
    reason = None
    if draft is not None or books.policy is not None:
        try:
            shown = _compared(books, name, draft, until)
        except _REFUSALS as error:
            reason = told(error).message
    return render(
        request,
        "preview.html",
        status,
        wanted=name,
        until=until,
        draft=draft,
        finalised_from=None if draft is None else _finalised_from(draft),
        has_policy=books.policy is not None,
        now=now_us(),
        problem=problem,
        reason=reason,
        **shown,
    )


def _compared(books: Books, name: str, draft: Period | None, until: str) -> dict[str, Any]:
    """A preview and its table."""
    # A draft keeps its own policy and its own end.
    terms = Terms() if draft is not None else Terms(until_us=_end(until, periods.policy_of(books, Terms())))
    preview = periods.preview(books, name, terms)
    difference = None if preview.compared_with is None else preview.difference
    table = table_of(preview.settlement.lines, names_in(books), preview.settlement, difference)
    return {"preview": preview, "table": table, "until_us": terms.until_us}


def _closed(books: Books, name: str) -> Period | None:
    """The closed period of that name; None when there is none."""
    try:
        return periods.period(books, None, name)
    except NotFoundError:
        return None


def _end(until: str, policy: Policy) -> int | None:
    """The end of a period in microseconds: as it was typed, in UTC, or this moment.

    Under a policy with grace hours there is no end before one is typed: this moment could not be closed for so long.
    """
    if until:
        try:
            typed = datetime.fromisoformat(until)
        except ValueError as error:
            raise InvalidRequestError(f"{until!r} is no moment as in 2026-11-30 23:59", param="until") from error
        end_us = max(moment_of(typed), 0)
        if end_us > LARGEST:
            raise InvalidRequestError(f"{until!r} is no moment before the year 2255", param="until")
        return end_us
    return None if policy.grace_hours else now_us()


def _finalised_from(period: Period) -> int | None:
    """From when on a draft may be made final; None for other periods, and for a member, who is not told the policy."""
    if period.settlement is None or period.state not in ("draft", "disputed"):
        return None
    return period.closed_at_us + int(period.settlement.policy.get("dispute_days", 0)) * DAY_US


def _suggested(found: Sequence[Period]) -> str:
    """What a preview is probably wanted of: the draft, where there is one, or this month."""
    if found and found[-1].state in ("draft", "disputed"):
        return found[-1].name
    month = datetime.now(UTC).strftime("%Y-%m")
    return "" if month in {period.name for period in found} else month


def _closed_by_another(books: Books, viewer: Viewer, name: str) -> str:
    """Who closed a period before the viewer could."""
    first = periods.period(books, None, name).moves[0]
    whose = "you" if first.actor == viewer.key.key_id else first.actor
    return f"Period {name} had been closed already, by {whose} at {text_of(first.at_us)}; nothing was done now."


def _address(name: str) -> str:
    return f"/periods/{quote(name, safe='')}"


def _fault(error: ValidationError) -> str:
    """What pydantic found wrong with what was typed, as it is told to people."""
    fault = error.errors()[0]
    return f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}"
