"""How much each application has generated, by the books. Knows no budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlmodel import col

from rewards.tables import ReceiptRow

if TYPE_CHECKING:
    from sqlalchemy import Connection


def tokens_of(connection: Connection, application: str, after: int = 0) -> tuple[int, int]:
    """Tokens, less those reversed, of an application's receipts after a sequence number; and the last such number.

    Called again with that number it gives what came since, and reads no receipt twice: numbers follow the order of
    commit. (0, `after`) where there are none.
    """
    query = select(func.sum(col(ReceiptRow.tokens)), func.max(col(ReceiptRow.sequence))).where(
        col(ReceiptRow.application) == application, col(ReceiptRow.sequence) > after
    )
    tokens, last = connection.execute(query).one()
    return int(tokens or 0), last or after
