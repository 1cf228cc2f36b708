"""`/`: how the consortium stands now. An application's key has no figures to see and goes to the playground."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from deployment.books.books import Books
from deployment.console.charts import svg
from deployment.console.charts.timeline import Timeline, timeline
from deployment.console.dependencies import TheBooks
from deployment.console.figures.snapshot import FiguresSnapshot, TheFigures
from deployment.console.figures.view import FiguresView, view_of
from deployment.console.rendering import TheViewer, redirect, render
from deployment.errors import UnavailableError
from deployment.gateway.service import Service, TheService
from rewards import statements
from rewards.credit import COMMONS, PENDING
from rewards.errors import LedgerError
from rewards.store.database import now_us

router = APIRouter()

DRAWN: Final = 8
"""How many clients have a series of their own in the chart over time; the others share one."""
OTHERS: Final = "others"
PATIENCE_S: Final = 1.0
"""How long the page waits for a replica to answer."""
STATEMENTS: Final = 6


@dataclass(frozen=True)
class _Health:
    """Whether the model answers, or why not, and how many replicas run; None where nobody can say."""

    engine_problem: str | None
    replicas: int | None


@router.get("/")
async def overview(
    request: Request, viewer: TheViewer, books: TheBooks, service: TheService, figures: TheFigures
) -> Response:
    """The open period, who earned what of it, and whether all is well. While the ledger is away, as it was then."""
    if viewer.key.role == "application":
        return redirect(request, "/playground")
    # In the threads of the other pages: who waits for figures takes none of those in which requests are admitted.
    reading = await run_in_threadpool(figures.now)
    if reading is None:
        return render(request, "waiting.html")
    shown = view_of(reading, viewer.visible)
    if viewer.visible is not None:
        if shown.client(viewer.visible) is None:  # registered since that reading
            return render(request, "waiting.html")
        context = await run_in_threadpool(_of_member, books, viewer.visible, shown)
        return render(request, "own_overview.html", **context)
    health = await _health(service)
    return await run_in_threadpool(
        lambda: render(request, "overview.html", health=health, **_of_all(shown, reading))  # many clients take a while
    )


def _of_all(shown: FiguresView, reading: FiguresSnapshot) -> dict[str, Any]:
    accounts = (*shown.clients, shown.commons, shown.pending)
    return {
        "shown": shown,
        "longest": max((client.open_share for client in accounts if client), default=0) or 1,
        "over_time": _over_time(shown),
        "reading": reading,
        "now": now_us(),
    }


def _of_member(books: Books, client: str, shown: FiguresView) -> dict[str, Any]:
    columns = timeline(shown.trend, shown.read_at_us)
    written: list[dict[str, Any]] | None = None
    with suppress(LedgerError), books.ledger.database.read(member=client) as connection:
        issued = statements.find_statements(connection, client=client, limit=1000)[-STATEMENTS:][::-1]
        written = [event.document | {"written_at_us": event.at_us} for event in issued]
    return {
        "shown": shown,
        "own": shown.client(client),
        "columns": columns,
        "chart": None if columns is None else own_chart(columns, client, "Your credit over time"),
        "written": written,
        "now": now_us(),
    }


@dataclass(frozen=True)
class _OverTime:
    """The chart over time, its legend, and the same as a table."""

    chart: Any
    series: list[svg.Series]
    columns: Timeline

    def is_used(self, place: int) -> bool:
        """Whether anything was booked in a column."""
        return any(each.values[place] for each in self.series)


def _over_time(shown: FiguresView) -> _OverTime | None:
    """Who earned what when: the commons, the clients that earned most, and all others together."""
    columns = timeline(shown.trend, shown.read_at_us)
    if columns is None:
        return None
    clients = sorted(shown.clients, key=lambda client: -columns.total(client.id))
    drawn, others = clients[:DRAWN], [client.id for client in clients[DRAWN:] if any(columns.of(client.id))]
    series = [svg.Series(client.name, client.colour, columns.of(client.id)) for client in drawn]
    if others:
        label = f"{len(others)} other{'s' if len(others) > 1 else ''}"
        series.append(svg.Series(label, OTHERS, columns.sum_of(others)))
    series.append(svg.Series("Commons", COMMONS, columns.of(COMMONS)))
    series.append(svg.Series("Pending", PENDING, columns.of(PENDING)))
    series = [each for each in series if any(each.values)]
    desc = "; ".join(f"{each.label} {svg.compact(sum(each.values))} in all" for each in series)
    chart = svg.columns("trend", "Credit over time", desc, columns.starts_us, columns.width_us, series)
    return _OverTime(chart, series, columns)


def own_chart(columns: Timeline, client: str, title: str, colour: str = "c0") -> Any:
    """One client's credit, piled up over time."""
    piled = columns.running_total(client)
    desc = f"From nothing to {svg.compact(piled[-1])} credits."
    return svg.line("credit", title, desc, columns.starts_us, columns.width_us, svg.Series(title, colour, piled))


async def _health(service: Service) -> _Health:
    problem, replicas = None, None
    try:
        async with asyncio.timeout(PATIENCE_S):
            checks = (service.engine.check(name) for name in service.engine.names)
            replicas, _ = await asyncio.gather(service.engine.count_replicas(), asyncio.gather(*checks))
    except UnavailableError as error:
        problem = error.message
    except TimeoutError:
        problem = f"no replica answers within {PATIENCE_S:g} second"
    return _Health(problem, replicas)
