"""One account's line of a settlement, as it is written down. Knows no other account.

Money that comes to an account and money that leaves it are equal on every line, in minor units:

    gross + carried_in + released_holdback + released_hold + drawn_holdback + recovered
        = clawback + holdback + held + payout + carried_out
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from rewards.files.strict_json import JsonObject
from rewards.settlement.balances import Balance, check_money

_BIG = ("credit", "late", "held_credit", "residue")  # may exceed what JSON keeps exact, so they travel as text


@dataclass(frozen=True)
class Line:
    """What one account gets and why. Credit is in micro-credits, money in minor units of the currency.

    Attributes:
        account: a client, or the commons.
        credit: net credit in the window; may be negative.
        late: the part of it that is of responses made before the previous period ended.
        held_credit: credit left out because of holds on responses.
        share: the part of the distributable pool that is due, exactly; all lines sum to 1. Documents have called it so
            since the first one; everywhere else a share is of credit, and this is the part.
        residue: trillionths of a minor unit that rounding still owes to the account after this period:
            the residue before + share * distributable * 10**12 - gross * 10**12.
        gross: the part of the distributable pool, rounded down or up; the commons absorbs what remains.
        carried_in: what was carried over from the period before; negative: owed.
        released_holdback: holdbacks of earlier periods that fall due.
        released_hold: what a hold had withheld, since the client is on hold no more.
        drawn_holdback: kept holdbacks used up against a debt, oldest first.
        recovered: what clients gave back in this period of claw-backs and debts, where it comes to this account: to
            the commons, or under `commons: distribute` to clients who gave nothing back.
        clawback: what is taken back for reversed responses.
        holdback: part of the gross that is kept back from now on.
        held: what would be paid, but for a hold on the client.
        payout: what is paid.
        carried_out: what is carried to the next period; negative: owed.
        held_total: all that holds withhold after this period.
        holdbacks: all that is kept back after this period, as in `Balance`.

    Raises:
        CreditError: an amount of money that is no integer, or larger than JSON keeps exact; the account is named.
    """

    account: str
    credit: int
    late: int
    held_credit: int
    share: Fraction
    residue: int
    gross: int
    carried_in: int = 0
    released_holdback: int = 0
    released_hold: int = 0
    drawn_holdback: int = 0
    recovered: int = 0
    clawback: int = 0
    holdback: int = 0
    held: int = 0
    payout: int = 0
    carried_out: int = 0
    held_total: int = 0
    holdbacks: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for name in _MONEY:
            check_money(f"{name} of {self.account!r}", getattr(self, name))
        for holdback in self.holdbacks:
            for number in holdback:
                check_money(f"a holdback of {self.account!r}", number)

    @property
    def balance(self) -> Balance:
        """What the account carries to the next period."""
        return Balance(self.residue, self.carried_out, self.held_total, self.holdbacks)

    def to_document(self) -> JsonObject:
        """Plain data for JSON; `from_document` reads it back."""
        document: JsonObject = {name: getattr(self, name) for name in _FIELDS}
        document |= {name: str(document[name]) for name in _BIG}
        document["share"] = f"{self.share.numerator}/{self.share.denominator}"
        document["holdbacks"] = [{"released_in": ordinal, "amount": amount} for ordinal, amount in self.holdbacks]
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Line:
        """The line that `to_document` wrote down; KeyError, TypeError or ValueError when it did not."""
        values = dict(document)
        values |= {name: int(values[name]) for name in _BIG}
        values["share"] = Fraction(values["share"])
        values["holdbacks"] = tuple((each["released_in"], each["amount"]) for each in values["holdbacks"])
        return cls(**values)


_FIELDS = tuple(field.name for field in fields(Line))
_MONEY = tuple(field.name for field in fields(Line) if field.type == "int" and field.name not in _BIG)
