"""Whose credit a response is, in the order in which pages show it. Pure; knows no page."""

from collections.abc import Mapping
from dataclasses import dataclass

from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN


@dataclass(frozen=True)
class Credit:
    """An account's credit of a response: micro-credits, and its share of all of the response's."""

    account: str
    amount: int
    share: float


def credits_of(amounts: Mapping[str, int], tokens: int) -> list[Credit]:
    """Each account's credit, the largest first and the commons last; the shares of a reversal are those it takes back.

    Args:
        amounts: account to micro-credits.
        tokens: of the response; negative in a reversal.
    """
    whole = tokens * MICRO_CREDITS_PER_TOKEN
    order = [Credit(account, amount, amount / whole) for account, amount in amounts.items()]
    return sorted(order, key=lambda credit: (credit.account == COMMONS, -credit.share))
