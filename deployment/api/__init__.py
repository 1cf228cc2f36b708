"""The operator API under `/api/v1`: the books over HTTP, for operators, auditors, admins and each member.

Who may call what is `access`'s business; a member's routes show its own figures only, by `dependencies.Visible`. No
rule of money lives here: each module of `routes` takes a request apart, calls `deployment.books` or `rewards`, and
shapes the answer.

    routes/       the routes of the operator API, one noun of its paths in each module
    dependencies  what the routes work with, and whose figures each caller may see
    filters       which rows are meant by a request, and which of them its caller may see
    paging        lists in pages: how many rows, and where a page begins
"""

from fastapi import APIRouter

from deployment.api.routes import (
    clients,
    consortium,
    credit,
    entries,
    events,
    exports,
    holds,
    keys,
    log,
    periods,
    receipts,
    rounds,
    shares,
    statements,
)

__all__ = ["router"]

router = APIRouter(prefix="/api/v1")
for _part in (
    *(consortium, clients, shares, credit, entries, receipts, events, exports),
    *(periods, holds, statements, rounds, log, keys),
):
    router.include_router(_part.router)
