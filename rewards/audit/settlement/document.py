"""A settlement computed a second time, as a document: what the books must say of a period, and what it carries on.

Steps 8 to 13 of the rule, and the first rule's own way to take back. Knows no row and no event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import gcd
from typing import Any

from rewards.audit import hashing
from rewards.audit.hashing import Document
from rewards.audit.settlement.counting import Count, CountFrame
from rewards.audit.settlement.dividing import COMMONS, divide
from rewards.audit.settlement.pending import PENDING, open_samples, sampling_document, settle_pending
from rewards.audit.settlement.settle import (
    FIRST_RULE,
    AccountBalance,
    Currency,
    Earnings,
    Entitlement,
    Purse,
    entitle,
    pay,
)
from rewards.audit.settlement.terms import Terms

_COMMONS_HAS_NONE = (
    "released_holdback", "released_hold", "drawn_holdback", "clawback", "holdback", "held", "held_total",
)  # fmt: skip


@dataclass
class ExpectedSettlement:
    """A period as it must have been settled.

    Attributes:
        name, ordinal, rule, policy: by which name, number, rule and stored policy.
        entitlement: what was due to whom.
        opening: the purse of its currency that it began with.
        around: what else it was settled over.
        lines: account -> field -> value, as the document has them.
        standing: the purses of other currencies after it.
        document: the settlement's document.
    """

    name: str
    ordinal: int
    rule: int
    policy: Mapping[str, Any]
    entitlement: Entitlement
    opening: Purse
    around: Circumstances
    lines: dict[str, Document] = field(default_factory=dict)
    standing: dict[Currency, Purse] = field(default_factory=dict)
    document: Document = field(default_factory=dict)

    @property
    def terms(self) -> Terms:
        """Its policy's terms."""
        return Terms.of(self.policy)

    @property
    def sha256(self) -> str:
        """Hash of the document."""
        return sha256(hashing.canonical_text(self.document).encode()).hexdigest()

    def next_purses(self) -> dict[Currency, Purse]:
        """What the next period begins with, by currency."""
        own = Purse(pool=self.entitlement.pool_left, fee=self.entitlement.fee_left)
        for account, line in self.lines.items():
            holdbacks = {each["released_in"]: each["amount"] for each in line["holdbacks"]}
            own.accounts[account] = AccountBalance(
                int(line["residue"]), line["carried_out"], line["held_total"], holdbacks
            )
        return {**self.standing, self.terms.currency: own}

    def gains(self) -> dict[str, int]:
        """Account -> what the period gave it: its gross, and its part of what others gave back (12)."""
        return {account: line["gross"] + line["recovered"] for account, line in self.lines.items()}


@dataclass(frozen=True)
class Circumstances:
    """What a period is settled over, besides policy and credit.

    Attributes:
        window: (after, up to) of its receipts.
        before: the period before; None of the first.
        held_clients: clients on hold.
        clawbacks: currency -> client -> minor units that reversals take back.
    """

    window: tuple[int, int]
    before: ExpectedSettlement | None
    held_clients: frozenset[str]
    clawbacks: Mapping[Currency, Mapping[str, int]]


def settle(
    name: str, policy: Mapping[str, Any], earned: Earnings, around: Circumstances, rule: int
) -> ExpectedSettlement:
    """Settle a period by a rule.

    Raises:
        ValueError: the policy is none.
    """
    terms = Terms.of(policy)
    opening, standing = _opening(around.before, terms, rule)
    ordinal = 1 if around.before is None else around.before.ordinal + 1
    own_clawbacks = around.clawbacks.get(terms.currency, {})
    told = _tell(name, terms, earned, own_clawbacks)
    entitlement = entitle(name, terms, told, opening, rule)
    settlement = ExpectedSettlement(name, ordinal, rule, policy, entitlement, opening, around)
    recovered = dict.fromkeys(entitlement.gross, 0)
    _pay_clients(settlement, terms, own_clawbacks, around.held_clients, recovered)
    back = sum(_repayment(settlement, client) for client in settlement.lines)
    credit = told.accounts()
    if terms.distributes and rule != FIRST_RULE and back:  # 9
        weights = {
            client: credit[client]
            for client, line in settlement.lines.items()
            if credit[client] > 0 and not line["clawback"] and line["carried_in"] >= 0
        }
        shares = divide(back, weights, name) if weights else {}
        recovered |= shares
        back -= sum(shares.values())
        _pay_clients(settlement, terms, own_clawbacks, around.held_clients, recovered)
    settlement.lines[COMMONS] = _commons(entitlement, opening, back)
    settlement.standing = _standing(standing, around.clawbacks, terms.currency)
    _write(settlement, told, around.window)
    _write_sampling(settlement, terms, earned)
    return settlement


def _tell(name: str, terms: Terms, earned: Earnings, clawbacks: Mapping[str, int]) -> Earnings:
    """0: what is divided by, and shown, without a pending account."""
    credit, _ = settle_pending(earned.credit, earned.samples, name, by_application=terms.by_application)
    late, held = ({each: told[each] for each in told if each != PENDING} for told in (earned.late, earned.held))
    return Earnings(earned.tokens, credit, late, held, earned.mentioned | {*clawbacks, *late, *held})


def _write_sampling(settlement: ExpectedSettlement, terms: Terms, earned: Earnings) -> None:
    """What the document says of a period in which something was pending."""
    by_application, tokens = terms.by_application, sum(earned.tokens.values())
    samples = open_samples(earned.samples, by_application=by_application)
    late, held = (told.get(PENDING, 0) for told in (earned.late, earned.held))
    if samples or held:
        _, settled = settle_pending(earned.credit, earned.samples, settlement.name, by_application=by_application)
        settlement.document["sampling"] = sampling_document(samples, settled, tokens, late, held)


def gains_without(period: ExpectedSettlement, earned: Earnings) -> dict[str, int]:
    """Account -> what a period would have given it with this credit instead (12)."""
    return settle(period.name, period.policy, earned, period.around, period.rule).gains()


def clawback_by_first_rule(line: Mapping[str, Any], reversed_credit: int) -> int:
    """What the first rule takes back of a line once so much of its credit was reversed."""
    credit = int(line["credit"])
    if line["gross"] <= 0 or credit <= 0:
        return 0
    return int(min(line["gross"], reversed_credit * line["gross"] // credit))


def _opening(before: ExpectedSettlement | None, terms: Terms, rule: int) -> tuple[Purse, dict[Currency, Purse]]:
    """1: the purse of the policy's currency, and those that stand; by the first rule whatever there is is its own."""
    purses = {} if before is None else before.next_purses()
    if rule == FIRST_RULE:
        return (Purse() if before is None else purses[before.terms.currency]), {}
    return purses.pop(terms.currency, Purse()), purses


def _pay_clients(
    settlement: ExpectedSettlement,
    terms: Terms,
    clawbacks: Mapping[str, int],
    held: frozenset[str],
    recovered: Mapping[str, int],
) -> None:
    for client in settlement.entitlement.gross:
        if client != COMMONS:
            own = settlement.opening.of(client)
            settlement.lines[client] = pay(
                client,
                settlement.entitlement,
                terms,
                own,
                settlement.ordinal,
                clawback=clawbacks.get(client, 0) + own.clawback,
                recovered=recovered[client],
                on_hold=client in held,
            )


def _repayment(settlement: ExpectedSettlement, client: str) -> int:
    line = settlement.lines[client]
    return int(line["clawback"] + max(-line["carried_in"], 0) - max(-line["carried_out"], 0))


def _commons(entitlement: Entitlement, opening: Purse, recovered: int) -> Document:
    """10: it has no minimum, no holdback and no hold."""
    gross, carry = entitlement.gross[COMMONS], opening.of(COMMONS).carry
    due = gross + carry + recovered
    paid = {"payout": max(due, 0), "carried_out": min(due, 0), "recovered": recovered}
    return {"gross": gross, "carried_in": carry, **dict.fromkeys(_COMMONS_HAS_NONE, 0), "holdbacks": [], **paid}


def _standing(
    standing: Mapping[Currency, Purse], clawbacks: Mapping[Currency, Mapping[str, int]], own: Currency
) -> dict[Currency, Purse]:
    """11: other currencies' purses with their claw-backs added, without what carries nothing."""
    purses: dict[Currency, Purse] = {}
    for currency in sorted({*standing, *clawbacks} - {own}):
        before = standing.get(currency, Purse())
        purse = Purse(dict(before.accounts), before.pool, before.fee)
        for client, amount in clawbacks.get(currency, {}).items():
            was = purse.of(client)
            purse.accounts[client] = AccountBalance(
                was.residue, was.carry, was.held, was.holdbacks, was.clawback + amount
            )
        purse.accounts = purse.open_balances()
        if purse != Purse():
            purses[currency] = purse
    return purses


def _write(settlement: ExpectedSettlement, earned: Earnings, window: tuple[int, int]) -> None:
    """Complete the lines, and put the document together."""
    entitlement, credit = settlement.entitlement, earned.accounts()
    for account, line in settlement.lines.items():
        part = entitlement.parts.get(account, 0)
        common = gcd(part, entitlement.whole)
        line |= {
            "account": account,
            "credit": str(credit[account]),
            "late": str(earned.late.get(account, 0)),
            "held_credit": str(earned.held.get(account, 0)),
            "share": f"{part // common}/{entitlement.whole // common}",
            "residue": str(entitlement.residues[account]),
        }
    settlement.lines = {account: settlement.lines[account] for account in sorted(settlement.lines)}
    settlement.document = {
        "period": settlement.name,
        "ordinal": settlement.ordinal,
        "window": {"after": window[0], "up_to": window[1]},
        "tokens": sum(earned.tokens.values()),
        "policy": dict(settlement.policy),
        "pool": entitlement.pool,
        "fee": entitlement.fee,
        "distributable": entitlement.pool - entitlement.fee,
        "lines": list(settlement.lines.values()),
        "unclaimed": entitlement.unclaimed,
    }
    if settlement.rule != FIRST_RULE:
        settlement.document |= {
            "rule": settlement.rule,
            "pool_fraction": str(entitlement.pool_left),
            "fee_fraction": str(entitlement.fee_left),
            "standing": [purse.document(currency) for currency, purse in settlement.standing.items()],
        }


def reversed_credit(counted: Count) -> dict[str, dict[str, int]]:
    """Earlier period -> client -> micro-credits that are taken back of it, as the document of a period has them."""
    return {
        name: {client: amount for client, amount in credit.items() if amount and client != COMMONS}
        for name, credit in counted.reversed.items()
    }


def period_document(
    frame: CountFrame,
    counted: Count,
    settlement: ExpectedSettlement,
    as_of_us: int | None,
    taken: Mapping[str, dict[str, int]],
    keys: list[Document],
) -> Document:
    """The document of a draft or final period."""
    document = {
        "ordinal": settlement.ordinal,
        "window": {"after": frame.after, "up_to": frame.up_to},
        "until_us": frame.until_us,
        "deferred": counted.deferred,
        "left_out": counted.left_out,
        "taken_in": counted.taken_in,
        "reversed": reversed_credit(counted),
        "settlement": settlement.document,
    }
    if settlement.rule != FIRST_RULE:
        document |= {"as_of_us": as_of_us, "clawbacks": taken}
    if keys:
        document["sampling_keys"] = keys
    return {**document, "sha256": sha256(hashing.canonical_text(document).encode()).hexdigest()}
