"""What an application has generated, by the books, and under which names it stands there. Knows no budget."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from sqlalchemy import Connection, func, select
from sqlmodel import col

from rewards.store.database import Database
from rewards.store.sums import exact_sum
from rewards.store.tables import ApiKeyRow, ReceiptRow

_AT_ONCE = 500  # ids in one statement


def names_of(connection: Connection, application: str) -> list[str]:
    """The names under which an application's receipts and claims may stand: its identity, and the ids of its keys.

    What was booked before keys had an identity stands under the key that asked.

    Args:
        connection: of `Database.read` or `write`.
        application: an identity, or the id of any key that has or had it.
    """
    identity, key_id = col(ApiKeyRow.identity), col(ApiKeyRow.key_id)
    of_key = select(identity).where(key_id == application).scalar_subquery()
    return sorted({application, *connection.execute(select(key_id).where(identity == of_key)).scalars()})


def names_with_receipts(connection: Connection, application: str) -> list[str]:
    """Those of an application's names under which a receipt stands: mostly one, by which an index is read in order."""
    names = names_of(connection, application)
    name = col(ReceiptRow.application)
    return [each for each in names if connection.execute(select(name).where(name == each).limit(1)).first() is not None]


def is_of(database: Database, application: str, name: str) -> bool:
    """Whether the name that a receipt stands under is one of an application's.

    Raises:
        LedgerError: the database fails.
    """
    if name == application:
        return True
    with database.read() as connection:
        return name in names_of(connection, application)


def find_booked(connection: Connection, response_ids: Iterable[str]) -> set[str]:
    """Those of some responses that have a receipt."""
    rest, booked = iter(response_ids), set[str]()
    response_id = col(ReceiptRow.response_id)
    while some := list(islice(rest, _AT_ONCE)):
        booked |= set(connection.execute(select(response_id).where(response_id.in_(some))).scalars())
    return booked


def tokens_of(connection: Connection, application: str, after: int = 0) -> tuple[int, int]:
    """Tokens, less those reversed, of an application's receipts after a sequence number; and the last such number.

    Called again with that number it gives what came since, and reads no receipt twice: numbers follow the order of
    commit. (0, `after`) where there are none.
    """
    query = select(exact_sum(col(ReceiptRow.tokens)), func.max(col(ReceiptRow.sequence))).where(
        col(ReceiptRow.application).in_(names_of(connection, application)), col(ReceiptRow.sequence) > after
    )
    tokens, last = connection.execute(query).one()
    return int(tokens or 0), last or after
