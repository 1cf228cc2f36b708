"""`/credit`: micro-credits by account, of all time or of a closed period. Reads only."""

from typing import Annotated

from fastapi import APIRouter, Query

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.filters import Filters, narrow
from deployment.schemas.credit import Credit
from deployment.schemas.errors import failures
from rewards.views.selection import totals

router = APIRouter(tags=["credit"])


@router.get("/credit", summary="Credit by account", responses=failures(404))
def credit(books: TheBooks, visible: Visible, filters: Annotated[Filters, Query()]) -> Credit:
    """All that was ever booked, or what a closed period was settled by: receipts, tokens, and credit by account.

    A reversal that takes back from an earlier period is settled in money; its credit is of all time alone. A member's
    key sees its own account.
    """
    wanted = narrow(books, visible, filters)
    with books.ledger.database.read(member=visible) as connection:
        sums = totals(connection, wanted.selection, wanted.account)
    balances = sums.credit if wanted.account is None else {wanted.account: sums.credit.get(wanted.account, 0)}
    return Credit(
        period=None if wanted.period is None else wanted.period.name,
        receipts=sums.receipts if visible is None else None,
        tokens=sums.tokens if visible is None else None,
        balances=dict(balances),
    )
