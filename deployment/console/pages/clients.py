"""`/clients`: what each client earned, and one client by itself; for a member itself alone."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from deployment.books.books import Books
from deployment.console.charts import svg
from deployment.console.charts.timeline import timeline
from deployment.console.dependencies import TheBooks
from deployment.console.figures.snapshot import TheFigures
from deployment.console.figures.view import view_of
from deployment.console.pages.overview import own_chart
from deployment.console.rendering import TheViewer, render
from deployment.errors import NotFoundError
from deployment.schemas.fields import Name
from rewards import periods, statements
from rewards.errors import LedgerError
from rewards.periods import holds
from rewards.store.database import now_us

router = APIRouter()


@router.get("/clients")
def clients(request: Request, viewer: TheViewer, figures: TheFigures) -> Response:
    """Every client that the viewer may see, with its credit."""
    reading = figures.now()
    if reading is None:
        return render(request, "waiting.html")
    shown = view_of(reading, viewer.visible)
    columns = timeline(shown.trend, shown.read_at_us)
    sparks = (
        {}
        if columns is None
        else {client.id: svg.spark(columns.of(client.id), client.colour) for client in shown.clients}
    )
    return render(request, "clients.html", shown=shown, sparks=sparks)


@router.get("/clients/{client}")
def client(
    request: Request, viewer: TheViewer, books: TheBooks, figures: TheFigures, client: Annotated[Name, Path()]
) -> Response:
    """One client: its credit over time and by model, its statements and payouts, and what holds them up."""
    reading = figures.now()
    if reading is None:
        return render(request, "waiting.html")
    shown = view_of(reading, viewer.visible)
    own = shown.client(client)
    if own is None:
        raise NotFoundError(f"there is no client {client!r} here", param="client", code="client_not_found")
    columns = timeline(shown.trend, shown.read_at_us)
    is_earning = columns is not None and any(columns.of(client))
    chart = own_chart(columns, client, "Credit over time", own.colour) if columns and is_earning else None
    return render(
        request,
        "client.html",
        shown=shown,
        client=own,
        columns=columns,
        chart=chart,
        now=now_us(),
        **_of_books(books, viewer.visible, client),
    )


def _of_books(books: Books, visible: str | None, client: str) -> dict[str, Any]:
    """Statements, payouts, and for who sees everybody the holds, newest first; no payouts while the ledger is away."""
    try:
        with books.ledger.database.read(member=visible) as connection:
            written = statements.find_statements(connection, client=client, limit=1000)
        closed = periods.all(books.ledger)[::-1]
        placed = holds.all_holds(books.ledger)[::-1] if visible is None else []
    except LedgerError:
        return {"written": {}, "paid": None, "held": []}
    return {
        "written": {event.document["period"] for event in written},
        "paid": [(period, line) for period in closed for line in period.settlement.lines if line.account == client],
        "held": [hold for hold in placed if (hold.kind, hold.target) == ("client", client)],
    }
