"""The operator API under `/api/v1`: the books over HTTP, for operators, auditors, admins and each member.

Who may call what is `security`'s business; a member's routes show its own figures only, by `books.Visible`. No rule of
money lives here: each module takes a request apart, calls `rewards`, and shapes the answer.

    books         what the routes work with, and whose figures a caller sees
    shares        credit and shares: of the open period, of a closed one, of all time
    receipts      receipts, one and many, and their reversal
"""

from fastapi import APIRouter

from deployment.operator import receipts, shares
from deployment.operator.books import Books

__all__ = ["Books", "router"]

router = APIRouter(prefix="/api/v1")
for _part in (shares, receipts):
    router.include_router(_part.router)
