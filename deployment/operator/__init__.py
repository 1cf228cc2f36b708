"""The operator API under `/api/v1`: the books over HTTP, for operators, auditors, admins and each member.

Who may call what is `security`'s business; a member's routes show its own figures only, by `books.Visible`. No rule of
money lives here: each module takes a request apart, calls `rewards`, and shapes the answer.

    books         what the routes work with, and whose figures a caller sees
    pages         lists in pages
    filters       what a caller asks to see, and what of it the caller may see
    consortium    consortia and their models
    clients       clients and their credit
    shares        each account's share of a period, open or closed
    credit        credit by account, of all time or of a closed period
    entries       the lines that credit is made of
    receipts      receipts, one and many, and their reversal
    events        what happened besides
    exports       entries as CSV, receipts as CloudEvents
    periods       periods, their moves and their settlements
    holds         what is not to be paid for the time being
    statements    what each client is told, signed
    log           checkpoints and proofs
    keys          bearer keys
"""

from fastapi import APIRouter

from deployment.operator import (
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
    shares,
    statements,
)
from deployment.operator.books import Books

__all__ = ["Books", "router"]

router = APIRouter(prefix="/api/v1")
for _part in (
    *(consortium, clients, shares, credit, entries, receipts, events, exports),
    *(periods, holds, statements, log, keys),
):
    router.include_router(_part.router)
