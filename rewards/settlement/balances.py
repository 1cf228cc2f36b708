"""What is carried from period to period, each amount in the currency that it belongs to. Settles and converts nothing.

A currency is its code with its digits: EUR with 2 and EUR with 0 are two currencies. What is carried in one currency
lies in a purse of its own, and is settled only by a policy of that currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.files.strict_json import JsonObject
from rewards.settlement.policy import LARGEST, Currency
from rewards.settlement.rounding import UNIT


@dataclass(frozen=True)
class Balance:
    """What an account carries from period to period, in one currency.

    Attributes:
        residue: trillionths of a minor unit that rounding still owes to the account; below one unit for clients.
        carry: minor units below the minimum payout; negative: owed back.
        held: minor units withheld by a hold on the client.
        holdbacks: (ordinal of the period in which it is released, minor units), oldest first.
        clawback: minor units to take back, since responses that were paid for in this currency were reversed while
            periods were settled in another.
    """

    residue: int = 0
    carry: int = 0
    held: int = 0
    holdbacks: tuple[tuple[int, int], ...] = ()
    clawback: int = 0

    @property
    def debt(self) -> int:
        """Minor units that the account owes."""
        return max(-self.carry, 0)

    @property
    def money(self) -> int:
        """Minor units that are there for the account; a debt is not there."""
        return max(self.carry, 0) + self.held + sum(amount for _, amount in self.holdbacks)

    def due(self, ordinal: int, *, on_hold: bool) -> int:
        """Minor units that a period of that ordinal would pay of this balance if nothing else was earned."""
        released = sum(amount for release, amount in self.holdbacks if release <= ordinal)
        return 0 if on_hold else max(self.carry + self.held + released - self.clawback, 0)

    def to_document(self, account: str) -> JsonObject:
        """Plain data for JSON, with the account that it is of."""
        return {
            "account": account,
            "residue": str(self.residue),
            "carry": self.carry,
            "held": self.held,
            "holdbacks": [{"released_in": ordinal, "amount": amount} for ordinal, amount in self.holdbacks],
            "clawback": self.clawback,
        }


_NOTHING = Balance()


@dataclass(frozen=True)
class Purse:
    """What is carried in one currency.

    Attributes:
        balances: account -> what it carries.
        pool_fraction: trillionths of a minor unit by which earlier pools were rounded down; below one unit.
        fee_fraction: the same of the fees.
    """

    balances: Mapping[str, Balance] = field(default_factory=dict)
    pool_fraction: int = 0
    fee_fraction: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is carried."""
        return not (self.open_balances or self.pool_fraction or self.fee_fraction)

    @property
    def open_balances(self) -> dict[str, Balance]:
        """The balances that are not nothing, in the order of names."""
        return {account: each for account, each in sorted(self.balances.items()) if each != _NOTHING}

    def of(self, account: str) -> Balance:
        """What the account carries; nothing where it is not named."""
        return self.balances.get(account, _NOTHING)

    def to_document(self, currency: Currency) -> JsonObject:
        """Plain data for JSON, with the currency that it is in; accounts in the order of names."""
        return {
            "currency": currency.code,
            "minor_digits": currency.digits,
            "pool_fraction": str(self.pool_fraction),
            "fee_fraction": str(self.fee_fraction),
            "balances": [balance.to_document(account) for account, balance in self.open_balances.items()],
        }


@dataclass(frozen=True)
class Opening:
    """What a period begins with.

    Attributes:
        own: what is carried in the currency of its policy.
        standing: currency -> what is carried in each other one.
    """

    own: Purse = field(default_factory=Purse)
    standing: Mapping[Currency, Purse] = field(default_factory=dict)


def purse_of(document: Mapping[str, Any]) -> tuple[Currency, Purse]:
    """What `Purse.to_document` wrote down; KeyError, TypeError or ValueError when it did not."""
    balances = {
        each["account"]: Balance(
            int(each["residue"]),
            each["carry"],
            each["held"],
            tuple((holdback["released_in"], holdback["amount"]) for holdback in each["holdbacks"]),
            each["clawback"],
        )
        for each in document["balances"]
    }
    currency = Currency(document["currency"], document["minor_digits"])
    return currency, Purse(balances, int(document["pool_fraction"]), int(document["fee_fraction"]))


def check_purse(purse: Purse) -> None:
    """Refuse a purse that no settlement carried.

    Raises:
        CreditError: names the account and what is wrong.
    """
    for what, fraction in (("pool", purse.pool_fraction), ("fee", purse.fee_fraction)):
        if type(fraction) is not int or not 0 <= fraction < UNIT:
            raise CreditError(f"fraction of the {what} must be trillionths of one minor unit, not {fraction!r}")
    for account, balance in purse.balances.items():
        _check_balance(account, balance)


def check_money(what: str, amount: int) -> None:
    """Refuse what is no integer, or larger than JSON keeps exact.

    Raises:
        CreditError: says what.
    """
    if type(amount) is not int or abs(amount) > LARGEST:
        raise CreditError(f"{what} must be an integer of minor units up to {LARGEST}, not {amount!r}")


def _check_balance(account: str, balance: Balance) -> None:
    amounts = (
        balance.carry,
        balance.held,
        balance.clawback,
        *(number for each in balance.holdbacks for number in each),
    )
    for number in amounts:
        check_money(f"balance of {account!r}", number)
    if type(balance.residue) is not int:
        raise CreditError(f"residue of {account!r} must be an integer of trillionths, not {balance.residue!r}")
    if account == COMMONS:
        if balance.held or balance.holdbacks or balance.clawback:
            raise CreditError(f"balance of the commons must have nothing held and no holdbacks, not {balance!r}")
    elif abs(balance.residue) >= UNIT:
        raise CreditError(f"residue of {account!r} must be below {UNIT} trillionths, not {balance.residue}")
    if balance.held < 0 or balance.clawback < 0 or any(amount < 0 for _, amount in balance.holdbacks):
        raise CreditError(f"what is held of {account!r} must be at least 0, not {balance!r}")
