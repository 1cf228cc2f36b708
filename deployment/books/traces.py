"""Who earned most of some responses, by the credit that was booked for them. Needs no model.

What the model would say of the same responses today is `attribution.tracing`'s to find.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployment.errors import InvalidRequestError, NotFoundError
from rewards.credit import COMMONS, PENDING
from rewards.ledger.ledger import Ledger
from rewards.store.clients import registrations
from rewards.store.database import Connection
from rewards.store.receipts import BookedReceipt, find_receipt
from rewards.views.newest_first import reversals

_NOBODYS = (COMMONS, PENDING)


@dataclass(frozen=True)
class TracedResponse:
    """A response as it was booked.

    Attributes:
        receipt: its credit, exact.
        reversed_by: the id of its reversal; None where its credit stands.
    """

    receipt: BookedReceipt
    reversed_by: str | None

    @property
    def is_measured(self) -> bool:
        """Whether its credit was computed; else its period settles it by others, and nothing is known of its own."""
        return not self.receipt.amounts.get(PENDING)

    @property
    def top_client(self) -> str | None:
        """Who earned most of it; None where no client earned."""
        earned = {client: amount for client, amount in self.receipt.amounts.items() if client not in _NOBODYS}
        top = max(sorted(earned), key=earned.__getitem__, default=None)
        return top if top is not None and earned[top] > 0 else None


@dataclass(frozen=True)
class Earner:
    """A client's part in the responses.

    Attributes:
        client: its id.
        name: what people read.
        credit: micro-credits.
        share: of what all clients earned of them.
        top_in: in how many of them it earned most.
    """

    client: str
    name: str
    credit: int
    share: float
    top_in: int


@dataclass(frozen=True)
class BookedTrace:
    """Responses, and who earned them.

    Attributes:
        responses: in the order in which they were asked for, each once.
        earners: every client that earned, the most first.
        commons: micro-credits that no client earned.
    """

    responses: tuple[TracedResponse, ...]
    earners: tuple[Earner, ...]
    commons: int


def trace_booked(ledger: Ledger, response_ids: Sequence[str]) -> BookedTrace:
    """Rank the clients by their booked credit in some responses, those that were reversed since included.

    Raises:
        NotFoundError: some of them are not booked; all of these are named.
        InvalidRequestError: one is a reversal.
    """
    with ledger.database.read() as connection:
        responses = _responses(connection, list(dict.fromkeys(response_ids)))
        names = {client: name for members in registrations(connection).values() for client, name in members.items()}
    measured = [each for each in responses if each.is_measured]
    earners = _earners(measured, names)
    return BookedTrace(tuple(responses), earners, sum(each.receipt.amounts.get(COMMONS, 0) for each in measured))


def _responses(connection: Connection, response_ids: Sequence[str]) -> list[TracedResponse]:
    receipt_of = {each: find_receipt(connection, each) for each in response_ids}
    receipts = [receipt for receipt in receipt_of.values() if receipt is not None]
    if missing := [each for each, receipt in receipt_of.items() if receipt is None]:
        raise NotFoundError(f"not booked in this ledger: {', '.join(map(repr, missing))}", code="response_not_found")
    for receipt in receipts:
        if receipt.kind == "reversal":
            raise InvalidRequestError(
                f"{receipt.response_id!r} is a reversal: trace {receipt.reverses!r}, its response"
            )
    taken_back = {key: each for key in response_ids for each in reversals(connection, [key]).values()}
    return [TracedResponse(receipt, taken_back.get(receipt.response_id)) for receipt in receipts]


def _earners(responses: Sequence[TracedResponse], names: Mapping[str, str]) -> tuple[Earner, ...]:
    credit: dict[str, int] = {}
    for each in responses:
        for account, amount in each.receipt.amounts.items():
            if account not in _NOBODYS:
                credit[account] = credit.get(account, 0) + amount
    whole = sum(credit.values())
    tops = [each.top_client for each in responses]
    order = sorted((client for client, amount in credit.items() if amount > 0), key=lambda each: (-credit[each], each))
    return tuple(
        Earner(each, names.get(each, each), credit[each], credit[each] / whole, tops.count(each)) for each in order
    )
