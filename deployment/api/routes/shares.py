"""`/shares`: who earned which part of a period. Reads only.

What a share is worth is `rewards.settlement.settle`'s business.
"""

from typing import Annotated

from fastapi import APIRouter, Query

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.filters import Narrowing, OpenPeriodFilters, narrow
from deployment.schemas.credit import AccountShare, SampledShare, Shares, Window
from deployment.schemas.errors import failures
from rewards.credit import MICRO_CREDITS_PER_TOKEN
from rewards.settlement.pending import NO_ERROR, Sampling
from rewards.views.selection import totals

router = APIRouter(tags=["credit"])


@router.get("/shares", summary="Each account's share of a period", responses=failures(404))
def shares(books: TheBooks, visible: Visible, filters: Annotated[OpenPeriodFilters, Query()]) -> Shares:
    """Each account's credit and share in the open period, or in a closed one as it was settled last.

    Credit is in micro-credits; the shares are floats for reading, and a settlement computes its own from integers.
    What is on hold counts in the open period until that is closed. What was not measured is pending, also once it is
    settled: `settled_credit` is what each account has of it then. A member's key sees its own account and share.
    """
    wanted = narrow(books, visible, filters)
    with books.ledger.database.read(member=visible) as connection:
        sums = totals(connection, wanted.selection, wanted.account)
    whole = sums.tokens * MICRO_CREDITS_PER_TOKEN
    credit = sums.credit if wanted.account is None else {wanted.account: sums.credit.get(wanted.account, 0)}
    sampling = None if wanted.period is None or wanted.is_narrowed else wanted.period.settlement.sampling
    if sampling is not None and wanted.account is None:  # the commons may have nothing but what was settled to it
        credit = dict(sorted({**dict.fromkeys(sampling.settled, 0), **credit}.items()))
    return Shares(
        period=_window(wanted, visible),
        tokens=sums.tokens if visible is None else None,
        accounts=[
            _share(AccountShare(account=account, credit=amount, share=amount / whole if whole else 0.0), sampling)
            for account, amount in credit.items()
        ],
    )


def _share(told: AccountShare, sampling: Sampling | None) -> AccountShare:
    """With what the account has of what was pending, where something was."""
    if sampling is None:
        return told
    settled = {"settled_credit": sampling.settled.get(told.account, 0)}
    error = {"standard_error": sampling.standard_errors.get(told.account, NO_ERROR)}
    return SampledShare.model_validate(dict(told) | settled | error)


def _window(wanted: Narrowing, visible: str | None) -> Window:
    period, previous = wanted.period, wanted.previous
    return Window(
        name=None if period is None else period.name,
        previous=None if previous is None else previous.name,
        opened_at_us=None if previous is None else previous.closed_at_us,
        closed_at_us=None if period is None else period.closed_at_us,
        first_sequence=wanted.selection.after + 1 if visible is None else None,
        last_sequence=wanted.selection.up_to if visible is None else None,
    )
