"""Pure: credit of a period and a policy in, integer payouts that sum to the pool out. Knows no SQL, clock or float."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from rewards.credit import COMMONS, PENDING, canonical_bytes, split
from rewards.errors import CreditError
from rewards.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Line:
    """What one account gets.

    Attributes:
        account: a client, or the commons.
        credit: micro-credits in the window.
        share: exact part of the pool that is due; all lines sum to 1.
        payout: minor units of the currency; differs from share * pool by less than one.
    """

    account: str
    credit: int
    share: Fraction
    payout: int


@dataclass(frozen=True)
class Settlement:
    """The payout of one period; the payouts of its lines sum to the pool exactly.

    Attributes:
        period: name of the period.
        window: (after, up to): receipts with after < sequence ≤ up to.
        policy: what it was settled by.
        lines: one per account with an entry, and always one of the commons; in the order of names.
        unclaimed: nobody whom the policy pays had credit, so the commons holds the whole pool.
    """

    period: str
    window: tuple[int, int]
    policy: Policy
    lines: tuple[Line, ...]
    unclaimed: bool

    def to_document(self) -> dict[str, Any]:
        """Plain data for JSON: integers, text and shares as "numerator/denominator"; `from_document` reads it back."""
        after, up_to = self.window
        return {
            "period": self.period,
            "window": {"after": after, "up_to": up_to},
            "policy": self.policy.model_dump(),
            "lines": [
                {
                    "account": line.account,
                    "credit": line.credit,
                    "share": f"{line.share.numerator}/{line.share.denominator}",
                    "payout": line.payout,
                }
                for line in self.lines
            ],
            "unclaimed": self.unclaimed,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Settlement:
        """The settlement that `to_document` wrote down."""
        return cls(
            period=document["period"],
            window=(document["window"]["after"], document["window"]["up_to"]),
            policy=Policy.from_mapping(document["policy"]),
            lines=tuple(
                Line(line["account"], line["credit"], Fraction(line["share"]), line["payout"])
                for line in document["lines"]
            ),
            unclaimed=document["unclaimed"],
        )

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the document in canonical form."""
        return sha256(canonical_bytes(self.to_document())).hexdigest()


def settle(period: str, credit: Mapping[str, int], policy: Policy, window: tuple[int, int]) -> Settlement:
    """Divide the policy's pool in proportion to credit, by largest remainder with the period's name as tie-break.

    The same input gives the same bytes. An account without credit gets nothing; when nobody whom the policy pays has
    credit, the commons holds the pool and the settlement says so (`unclaimed`).

    Args:
        period: name of the period.
        credit: account -> micro-credits ≥ 0 in the window.
        policy: pool and rules.
        window: (after, up to), recorded as given.

    Raises:
        CreditError: a credit that is not an integer ≥ 0, or credit that is still pending; the account is named.
    """
    for account, amount in credit.items():
        if type(amount) is not int or amount < 0:
            raise CreditError(f"credit of {account!r} must be an integer of at least 0, not {amount!r}")
    if PENDING in credit:
        raise CreditError(f"{credit[PENDING]} micro-credits are {PENDING}; attribute them before settling")
    paid = _paid(credit, policy)
    unclaimed = not any(paid.values())
    if unclaimed:
        paid = {COMMONS: 1}
    whole = sum(paid.values())
    payouts = split(policy.pool, paid, salt=period)
    lines = tuple(
        Line(account, credit.get(account, 0), Fraction(paid.get(account, 0), whole), payouts.get(account, 0))
        for account in sorted({*credit, COMMONS})
    )
    assert sum(line.payout for line in lines) == policy.pool
    return Settlement(period, window, policy, lines, unclaimed)


def _paid(credit: Mapping[str, int], policy: Policy) -> dict[str, int]:
    """The weights of those whom the policy pays."""
    if policy.commons == "distribute":
        return {account: amount for account, amount in credit.items() if account != COMMONS}
    return dict(credit)
