"""What a caller asks to see, and what of it the caller may see: filters of the credit routes, as queries and resolved.

The one place where a member's request is narrowed to its own client. To a member, any other client and consortium does
not exist, in the same words as one that really does not.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployment.api.paging import Paging
from deployment.books.books import Books
from deployment.errors import NotFoundError
from deployment.schemas.fields import Name
from rewards.credit import COMMONS, PENDING
from rewards.ledger import usage
from rewards.periods import Period
from rewards.periods.history import read_history
from rewards.store import queries
from rewards.store.database import Connection
from rewards.views.selection import Selection, of_open_period, of_period

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Filters(BaseModel):
    """Which receipts are meant, and whose credit."""

    model_config = ConfigDict(extra="forbid")

    period: Name | None = Field(None, description="The name of a closed period; all time without it.")
    client: Name | None = Field(None, description="A client's id, `commons` or `pending`; a member's key sees its own.")
    model: Name | None = Field(
        None, description="A model by the name that `/v1/models` gives it, which is the consortium's; or its SHA-256."
    )


class OpenPeriodFilters(Filters):
    """Which receipts are meant, and whose credit; of the open period where nothing else is said."""

    period: Name | None = Field(None, description="The name of a closed period; the open one without it.")


class EntryFilters(Filters, Paging):
    """Which entries are meant, and which page of them."""


class ReceiptFilters(EntryFilters):
    """Which receipts are meant, and which page of them."""

    application: Name | None = Field(
        None, description="The application that asked: its identity, or the id of one of its keys."
    )
    kind: Literal["response", "reversal"] | None = Field(None, description="Responses alone, or reversals alone.")


@dataclass(frozen=True)
class Narrowing:
    """What is to be read.

    Attributes:
        selection: the receipts.
        account: whose credit; None is everybody's.
        period: the closed period that was asked for; None is the open one, or all time.
        previous: the closed period before it.
    """

    selection: Selection
    account: str | None
    period: Period | None
    previous: Period | None

    @property
    def is_narrowed(self) -> bool:
        """Whether not all receipts of the period are meant."""
        return bool(self.selection.conditions)


def narrow(books: Books, visible: str | None, filters: Filters, *, with_clawbacks: bool = False) -> Narrowing:
    """What a caller asked for, as far as the caller may see it.

    Args:
        books: where it is read.
        visible: the only client that the caller may see; None is all of them.
        filters: the query.
        with_clawbacks: of a closed period also the reversals that take back from earlier ones, which it settles in
            money: no part of its credit.

    Raises:
        NotFoundError: a period, client or model that is not there, or not for this caller.
    """
    registered = books.ledger.clients()
    consortia = {name for name, members in registered.items() if visible is None or visible in members}
    everybody = {COMMONS, PENDING, *(client for members in registered.values() for client in members)}
    if filters.client is not None and filters.client not in (everybody if visible is None else {visible}):
        raise NotFoundError(f"there is no client {filters.client!r} here", param="client", code="client_not_found")
    if filters.model is not None and filters.model not in consortia and _SHA256.fullmatch(filters.model) is None:
        raise NotFoundError(f"there is no model {filters.model!r} here", param="model", code="model_not_found")
    with books.ledger.database.read() as connection:
        selection, period, previous = _period(connection, filters, with_clawbacks=with_clawbacks)
        application = getattr(filters, "application", None)
        applications = None if application is None else tuple(usage.names_with_receipts(connection, application))
    named = {name: getattr(filters, name, None) for name in ("model", "kind")} | {"applications": applications}
    return Narrowing(
        selection=Selection(selection.after, selection.up_to, selection.excluded, selection.included, **named),
        account=visible or filters.client,
        period=period,
        previous=previous,
    )


def _period(
    connection: Connection, filters: Filters, *, with_clawbacks: bool
) -> tuple[Selection, Period | None, Period | None]:
    if filters.period is None and not isinstance(filters, OpenPeriodFilters):
        return Selection(up_to=queries.last_sequence(connection, None)), None, None
    history = read_history(connection)
    if filters.period is None:
        last = history.periods[-1] if history.periods else None
        return of_open_period(connection, last), None, last
    period = history.find(filters.period)
    if period is None:
        raise NotFoundError(f"no period {filters.period!r} is closed", param="period", code="period_not_found")
    previous = history.before(period.ordinal)
    return of_period(connection, period, previous, with_clawbacks=with_clawbacks), period, previous
