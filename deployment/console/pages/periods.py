"""`/periods`: what was settled, what the open period would come to, and its moves, each of them asked twice.

Every figure and every move is of `deployment.books.periods`; what that refuses is told on the page that was used.
Settles nothing itself.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from deployment.books.books import Books
from deployment.books.explanations import explain_payout, readable_amount, readable_formula
from deployment.books.periods import (
    close_period,
    closed_period,
    closed_periods,
    dispute_period,
    finalise_period,
    find_period,
    note_payment,
    policy_for,
    preview_period,
)
from deployment.books.settlement_table import names_in, table_of
from deployment.books.statements import written_statements
from deployment.console.dependencies import TheBooks
from deployment.console.moves import REFUSALS, Refusal, attempt
from deployment.console.rendering import TheViewer, Viewer, redirect, render
from deployment.errors import InvalidRequestError
from deployment.http.exception_handlers import to_api_error
from deployment.schemas.fields import LARGEST
from deployment.schemas.periods import Dispute, Payment, Period
from rewards.moments import DAY_US, moment_of, month_end_us, text_of
from rewards.periods.errors import PeriodClosedError
from rewards.settlement.policy import Policy
from rewards.store.database import now_us

router = APIRouter()

_STATEMENTS = 1000  # the most that the page of a period shows

Text = Annotated[str, Form()]
Moment = Annotated[int | None, Form(ge=0, le=LARGEST)]
Expected = Annotated[str, Form(pattern="^[0-9a-f]{64}$")]


@router.get("/periods")
def list_page(request: Request, viewer: TheViewer, books: TheBooks) -> HTMLResponse:
    """The closed periods, newest first, and the way to a preview of the open one."""
    closed = closed_periods(books, viewer.visible)
    return render(
        request,
        "periods.html",
        periods=closed[::-1],
        finalised_from={period.name: _earliest_final_us(period) for period in closed},
        suggested=_suggestion(closed),
        has_policy=books.policy is not None,
        now=now_us(),
    )


@router.get("/periods/preview")
def preview_page(request: Request, books: TheBooks, name: str = "", until: str = "") -> HTMLResponse:
    """What closing a period would pay at this moment, or finalising where it is a draft."""
    return _preview_page(request, books, name, until)


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
        return _preview_page(request, books, name, until, problem, 400)
    try:
        closed = close_period(books, name, viewer.key.key_id, until_us=until_us, expected=expected)
    except PeriodClosedError:
        return redirect(request, _address(name), _explain_earlier_close(books, viewer, name))
    except REFUSALS as error:
        return _preview_page(request, books, name, until, f"Nothing was closed: {to_api_error(error).message}", 409)
    return redirect(request, _address(name), f"Period {name} is closed: it is {closed.state} now.")


@router.post("/periods/{name}/finalise")
def finalise(
    request: Request, viewer: TheViewer, books: TheBooks, name: str, expected: Expected, typed: Text = ""
) -> Response:
    """Make a draft final as it was previewed; where a hold has changed it since, show it and ask again."""
    if typed.strip() != name:
        problem = f"Nothing was finalised: to do so, type the period's name, {name}."
        return _preview_page(request, books, name, "", problem, 400)
    try:
        finalise_period(books, name, viewer.key.key_id, expected=expected)
    except REFUSALS as error:
        return _preview_page(request, books, name, "", f"Nothing was finalised: {to_api_error(error).message}", 409)
    return redirect(request, _address(name), f"Period {name} is final; every client has its statement.")


@router.post("/periods/{name}/dispute")
def dispute(
    request: Request, viewer: TheViewer, books: TheBooks, name: str, reason: Text = "", confirmed: Text = ""
) -> Response:
    """Mark a draft as disputed."""

    def move() -> Period:
        return dispute_period(books, name, Dispute(reason=reason).reason, viewer.key.key_id)

    return _page_after(request, viewer, books, name, move, confirmed, f"Period {name} is disputed.")


@router.post("/periods/{name}/pay")
def pay(
    request: Request, viewer: TheViewer, books: TheBooks, name: str, reference: Text = "", confirmed: Text = ""
) -> Response:
    """Note that a final period was paid."""

    def move() -> Period:
        return note_payment(books, name, Payment(reference=reference).reference, viewer.key.key_id)

    return _page_after(request, viewer, books, name, move, confirmed, f"Period {name} is noted as paid.")


@router.get("/periods/{name}")
def detail_page(request: Request, viewer: TheViewer, books: TheBooks, name: str) -> HTMLResponse:
    """One closed period: its settlement, who moved it when, what can be done with it, and its statements."""
    return _period_page(request, viewer, books, name)


@router.get("/periods/{name}/explanation/{client}")
def explanation_page(request: Request, viewer: TheViewer, books: TheBooks, name: str, client: str) -> HTMLResponse:
    """Why one client is paid what it is, line by line; a member sees its own alone."""
    return render(
        request,
        "explanation.html",
        explanation=explain_payout(books.ledger, viewer.visible, name, client),
        display_name=names_in(books.ledger).get(client, ""),
        readable_amount=readable_amount,
        readable_formula=readable_formula,
    )


def _page_after(
    request: Request,
    viewer: Viewer,
    books: Books,
    name: str,
    move: Callable[[], Period],
    confirmed: str,
    done: str,
) -> Response:
    """Make a move that was confirmed, and show the period with what came of it."""
    period = attempt(move, confirmed)
    if isinstance(period, Refusal):
        return _period_page(request, viewer, books, name, period)
    return redirect(request, _address(name), done)


def _period_page(
    request: Request, viewer: Viewer, books: Books, name: str, refusal: Refusal | None = None
) -> HTMLResponse:
    """The page of a closed period, perhaps with why what was asked of it was not done."""
    period = closed_period(books, viewer.visible, name)
    settlement = period.settlement
    own = [] if period.own is None else [period.own]
    statements = written_statements(books, viewer.visible, period=name, limit=_STATEMENTS)
    return render(
        request,
        "period.html",
        200 if refusal is None else refusal.status,
        period=period,
        table=table_of(own if settlement is None else settlement.lines, names_in(books.ledger), settlement),
        statements=statements.rows,
        has_more_statements=statements.place is not None,
        finalised_from=_earliest_final_us(period),
        now=now_us(),
        problem=None if refusal is None else refusal.problem,
    )


def _preview_page(
    request: Request,
    books: Books,
    name: str,
    until: str,
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    """The page of a preview: of a close, or of finalising a draft; or why there can be none."""
    draft = find_period(books, None, name)
    shown: dict[str, Any] = {"preview": None, "table": None, "until_us": None}
    reason = None
    if draft is not None or books.policy is not None:
        try:
            shown = _comparison(books, name, draft, until)
        except REFUSALS as error:
            reason = to_api_error(error).message
    return render(
        request,
        "preview.html",
        status,
        wanted=name,
        until=until,
        draft=draft,
        month_end=month_end_us(name),
        finalised_from=None if draft is None else _earliest_final_us(draft),
        has_policy=books.policy is not None,
        now=now_us(),
        problem=problem,
        reason=reason,
        **shown,
    )


def _comparison(books: Books, name: str, draft: Period | None, until: str) -> dict[str, Any]:
    """A preview and its table."""
    # A draft keeps its own policy and its own end.
    until_us = _end(until, policy_for(books, None)) if draft is None else None
    preview = preview_period(books, name, until_us=until_us)
    difference = None if preview.compared_with is None else preview.difference
    table = table_of(preview.settlement.lines, names_in(books.ledger), preview.settlement, difference)
    return {"preview": preview, "table": table, "until_us": until_us}


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


def _earliest_final_us(period: Period) -> int | None:
    """From when on a draft may be made final; None for other periods, and for a member, who is not told the policy."""
    if period.settlement is None or period.state not in ("draft", "disputed"):
        return None
    return period.closed_at_us + int(period.settlement.policy.get("dispute_days", 0)) * DAY_US


def _suggestion(closed: Sequence[Period]) -> str:
    """What a preview is probably wanted of: the draft, where there is one, or this month."""
    if closed and closed[-1].state in ("draft", "disputed"):
        return closed[-1].name
    month = datetime.now(UTC).strftime("%Y-%m")
    return "" if month in {period.name for period in closed} else month


def _explain_earlier_close(books: Books, viewer: Viewer, name: str) -> str:
    """Who closed a period before the viewer could."""
    first = closed_period(books, None, name).moves[0]
    whose = "you" if first.actor == viewer.key.key_id else first.actor
    return f"Period {name} had been closed already, by {whose} at {text_of(first.at_us)}; nothing was done now."


def _address(name: str) -> str:
    return f"/periods/{quote(name, safe='')}"
