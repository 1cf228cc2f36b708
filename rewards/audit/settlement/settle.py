"""A period settled a second time, from the words of the rule alone: literal, one account after the other.

The numbers in the comments are the steps of the rule as `rewards.settlement.settle` has it in words; no code in common
with it. Money is in minor units, entitlements and fractions in trillionths of one. Knows no row and no event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import Any

from rewards.audit.hashing import Document
from rewards.audit.settlement.dividing import COMMONS, TRILLION, divide, round_to_units
from rewards.audit.settlement.pending import Samples
from rewards.audit.settlement.terms import Terms

Currency = tuple[str, int]
FIRST_RULE, SECOND_RULE = 1, 2


@dataclass
class AccountBalance:
    """What one account carries in one currency."""

    residue: int = 0
    carry: int = 0
    held: int = 0
    holdbacks: dict[int, int] = field(default_factory=dict)
    clawback: int = 0

    @property
    def debt(self) -> int:
        """Minor units that are owed."""
        return max(-self.carry, 0)

    def document(self, account: str) -> Document:
        """As the document of a settlement lists what stands."""
        named = {"account": account, "residue": str(self.residue), "carry": self.carry, "held": self.held}
        return {**named, "holdbacks": list_holdbacks(self.holdbacks), "clawback": self.clawback}


@dataclass
class Purse:
    """What is carried in one currency: by account, and what rounding kept of pools and fees."""

    accounts: dict[str, AccountBalance] = field(default_factory=dict)
    pool: int = 0
    fee: int = 0

    def of(self, account: str) -> AccountBalance:
        """What an account carries; nothing where it is not named."""
        return self.accounts.get(account, AccountBalance())

    def open_balances(self) -> dict[str, AccountBalance]:
        """The accounts that carry something, in the order of names."""
        return {
            account: self.accounts[account] for account in sorted(self.accounts) if self.of(account) != AccountBalance()
        }

    def document(self, currency: Currency) -> Document:
        """As the document of a settlement lists what stands."""
        return {
            "currency": currency[0],
            "minor_digits": currency[1],
            "pool_fraction": str(self.pool),
            "fee_fraction": str(self.fee),
            "balances": [each.document(account) for account, each in self.open_balances().items()],
        }


@dataclass(frozen=True)
class Earnings:
    """What is divided by: tokens by application, credit by application and account, and what is shown beside it."""

    tokens: Mapping[str, int]
    credit: Mapping[tuple[str, str], int]
    late: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    mentioned: frozenset[str] = frozenset()
    samples: Samples = field(default_factory=dict)

    def accounts(self) -> Counter[str]:
        """Account -> micro-credits."""
        totals = Counter(dict.fromkeys(self.mentioned, 0))
        for (_, account), amount in self.credit.items():
            totals[account] += amount
        return totals

    def of_application(self, application: str) -> dict[str, int]:
        """Account -> micro-credits in the responses of one application."""
        return {account: amount for (each, account), amount in self.credit.items() if each == application}


@dataclass
class Entitlement:
    """Who is entitled to what: pool and fee, parts in trillionths that sum to `whole`, and the gross in minor units."""

    pool: int
    fee: int
    pool_left: int
    fee_left: int
    parts: dict[str, int]
    whole: int
    unclaimed: bool
    gross: dict[str, int] = field(default_factory=dict)
    residues: dict[str, int] = field(default_factory=dict)


def entitle(name: str, terms: Terms, earned: Earnings, purse: Purse, rule: int) -> Entitlement:
    """Steps 2 to 7: from the pool to everybody's gross."""
    tokens = max(sum(earned.tokens.values()), 0)
    if terms.price is not None:  # 2
        pool, pool_left = divmod(terms.price * tokens * TRILLION // 10**6 + purse.pool, TRILLION)
    else:
        pool, pool_left = sum(terms.fees.values()) if terms.by_application else int(terms.pool or 0), purse.pool
    fee, fee_left = divmod(int(pool * terms.fee * TRILLION) + purse.fee, TRILLION)  # 3
    if rule == FIRST_RULE:
        pool_left = fee_left = 0
    whole = max(pool - fee, 1) * TRILLION
    credit = earned.accounts()
    paid = {account for account, amount in credit.items() if amount > 0}  # 4
    paid -= {COMMONS} if terms.distributes else set()
    if terms.by_application:  # 5
        parts, unclaimed = _by_application(name, terms, earned, paid, whole, rule)
        weights: Mapping[str, int] = parts
    else:
        weights, unclaimed = {account: credit[account] for account in paid}, not paid
        parts = divide(whole, weights, name) if paid else {COMMONS: whole}
    parts = _cap_parts(name, terms, parts, weights, whole)
    entitlement = Entitlement(pool, fee, pool_left, fee_left, parts, whole, unclaimed)
    accounts = {COMMONS, *credit, *parts, *purse.accounts}  # 7
    due = {account: parts.get(account, 0) if pool > fee else 0 for account in accounts}
    residues = {account: purse.of(account).residue for account in accounts}
    entitlement.gross = round_to_units(due, residues, name)
    entitlement.residues = {each: residues[each] + due[each] - entitlement.gross[each] * TRILLION for each in accounts}
    return entitlement


def _by_application(
    name: str, terms: Terms, earned: Earnings, paid: set[str], whole: int, rule: int
) -> tuple[dict[str, int], bool]:
    """Step 5 where each application's fee is divided by the credit in its own responses."""
    parts, unclaimed = Counter({COMMONS: 0}), True
    brought = divide(whole, terms.fees, name) if any(terms.fees.values()) else {}
    for application, fee in terms.fees.items():
        tokens = earned.tokens.get(application, 0)
        own = earned.of_application(application)
        weights = {each: own[each] for each in own if own[each] > 0 and each in paid} if tokens > 0 else {}
        unclaimed = unclaimed and not weights
        if weights and fee:
            worth = Fraction(fee) if terms.most is None else Fraction(terms.most * tokens, 10**6)
            worth = Fraction(floor(worth)) if rule == FIRST_RULE else worth
            to_clients = floor(brought[application] * min(Fraction(fee), worth) / fee)
            parts.update(divide(to_clients, weights, name))
        elif weights:
            parts.update(dict.fromkeys(weights, 0))
    parts[COMMONS] += whole - sum(parts.values())
    return dict(parts), unclaimed


def _cap_parts(
    name: str, terms: Terms, parts: dict[str, int], weights: Mapping[str, int], whole: int
) -> dict[str, int]:
    """Step 6: what exceeds the clients' caps, shared by weight among those who are below theirs."""
    open_clients = {client for client in parts if client != COMMONS}
    caps = {client: int(whole * terms.caps.get(client, terms.cap)) for client in open_clients}
    if all(parts[client] <= caps[client] for client in open_clients):
        return parts
    left, capped = sum(parts[client] for client in open_clients), dict.fromkeys(parts, 0)
    while True:
        of_all = sum(weights[client] for client in open_clients)
        over = {client for client in open_clients if weights[client] * left > caps[client] * of_all}
        if not over:
            break
        for client in over:
            capped[client] = caps[client]
            left -= caps[client]
        open_clients -= over
    open_weights = {client: weights[client] for client in open_clients}
    if any(open_weights.values()):
        capped |= divide(left, open_weights, name)
    capped[COMMONS] = whole - sum(amount for account, amount in capped.items() if account != COMMONS)
    return capped


def pay(
    account: str, entitlement: Entitlement, terms: Terms, own: AccountBalance, ordinal: int, **given: Any
) -> Document:
    """Step 8: a client's line from its gross to its payout. `given`: clawback, recovered, on_hold."""
    gross, clawback, recovered, on_hold = (
        entitlement.gross[account],
        given["clawback"],
        given["recovered"],
        given["on_hold"],
    )
    released = sum(amount for release, amount in own.holdbacks.items() if release <= ordinal)
    released_hold = 0 if on_hold else own.held
    holdback = floor(gross * terms.holdback)
    kept = Counter({release: amount for release, amount in own.holdbacks.items() if release > ordinal})
    if holdback:
        kept[ordinal + terms.release_after] += holdback
    payable = gross + own.carry + released + released_hold + recovered - clawback - holdback
    drawn = 0
    for release in sorted(kept):
        taken = min(kept[release], max(-payable - drawn, 0))
        kept[release] -= taken
        drawn += taken
    payable += drawn
    held = max(payable, 0) if on_hold else 0
    payout = payable if not on_hold and payable >= terms.least else 0
    return {
        "gross": gross,
        "carried_in": own.carry,
        "released_holdback": released,
        "released_hold": released_hold,
        "drawn_holdback": drawn,
        "recovered": recovered,
        "clawback": clawback,
        "holdback": holdback,
        "held": held,
        "payout": payout,
        "carried_out": payable - held - payout,
        "held_total": own.held - released_hold + held,
        "holdbacks": list_holdbacks(+kept),
    }


def list_holdbacks(holdbacks: Mapping[int, int]) -> list[dict[str, int]]:
    """Holdbacks as documents list them, oldest first."""
    return [{"released_in": release, "amount": holdbacks[release]} for release in sorted(holdbacks)]
