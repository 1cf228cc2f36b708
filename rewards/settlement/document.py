"""A settlement: what one period paid, kept back and carried on, and its document. Computes nothing.

How it comes about is the business of `rewards.settlement.settle`, where the whole rule is written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from rewards.credit import canonical_bytes
from rewards.errors import CreditError
from rewards.files.strict_json import JsonObject
from rewards.settlement.account_line import Line
from rewards.settlement.balances import Balance, Opening, Purse, purse_of
from rewards.settlement.pending import Sampling
from rewards.settlement.policy import Currency, Policy

RULE = 2
"""The rule that new periods are settled by."""
FIRST_RULE = 1
"""The rule of settlements whose documents name none."""


@dataclass(frozen=True)
class Settlement:
    """The payout of one period. The gross of its lines sums to `distributable`, and that and the fee to the pool.

    Attributes:
        period: name of the period.
        ordinal: number of the period in the row of all periods; holdbacks are released by it.
        window: (after, up to): receipts with after < sequence ≤ up to.
        tokens: generated tokens in the window, net of reversals.
        policy: what it was settled by.
        pool: minor units in all.
        fee: minor units for whoever runs the service.
        distributable: pool - fee.
        lines: one per account with credit or a balance, and always one of the commons; in the order of names.
        unclaimed: nobody whom the policy pays had positive credit, so the commons has everything distributable.
        rule: the rule that it was settled by, 1 or 2.
        pool_fraction: trillionths of a minor unit by which pools so far were rounded down; carried on.
        fee_fraction: the same of fees.
        standing: currency -> what stands in each other one until a period is settled in it.
        sampling: how what was not measured was settled; None where nothing was pending.
    """

    period: str
    ordinal: int
    window: tuple[int, int]
    tokens: int
    policy: Policy
    pool: int
    fee: int
    distributable: int
    lines: tuple[Line, ...]
    unclaimed: bool
    rule: int = RULE
    pool_fraction: int = 0
    fee_fraction: int = 0
    standing: Mapping[Currency, Purse] = field(default_factory=dict)
    sampling: Sampling | None = None

    @property
    def next_balances(self) -> dict[str, Balance]:
        """Account -> what it carries to the next period, in the currency of this one."""
        return {line.account: line.balance for line in self.lines}

    @property
    def purses(self) -> dict[Currency, Purse]:
        """Currency -> what is carried in it, of this period's and of every other one."""
        own = Purse(self.next_balances, self.pool_fraction, self.fee_fraction)
        return {**self.standing, self.policy.money: own}

    def opening(self, policy: Policy, rule: int = RULE) -> Opening:
        """What the next period begins with if it is settled by this policy."""
        if rule == FIRST_RULE:
            return Opening(Purse(self.next_balances))
        purses = self.purses
        return Opening(purses.pop(policy.money, Purse()), purses)

    def to_document(self) -> JsonObject:
        """Plain data for JSON, read back by `from_document`.

        Credit and residues are decimal text, shares "numerator/denominator", money integers that JSON keeps exact.
        """
        after, up_to = self.window
        document = {
            "period": self.period,
            "ordinal": self.ordinal,
            "window": {"after": after, "up_to": up_to},
            "tokens": self.tokens,
            "policy": self.policy.model_dump(exclude_none=True),
            "pool": self.pool,
            "fee": self.fee,
            "distributable": self.distributable,
            "lines": [line.to_document() for line in self.lines],
            "unclaimed": self.unclaimed,
        }
        if self.rule != FIRST_RULE:
            document |= {
                "rule": self.rule,
                "pool_fraction": str(self.pool_fraction),
                "fee_fraction": str(self.fee_fraction),
                "standing": [purse.to_document(currency) for currency, purse in sorted(self.standing.items())],
            }
        if self.sampling is not None:
            document["sampling"] = self.sampling.to_document()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Settlement:
        """The settlement that `to_document` wrote down.

        Raises:
            CreditError: it is not such a document; a field is missing, unknown or spelt in another way.
            PolicyError: its policy is not valid.
        """
        try:
            values = dict(document)
            values["window"] = (values["window"]["after"], values["window"]["up_to"])
            values["policy"] = Policy.from_mapping(values["policy"], "policy of the settlement", stored=True)
            values["lines"] = tuple(Line.from_document(line) for line in values["lines"])
            values |= _second_rule(values) if "rule" in values else {"rule": FIRST_RULE}
            if "sampling" in values:
                values["sampling"] = Sampling.from_document(values["sampling"])
            settlement = cls(**values)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise CreditError(f"not a settlement document: {error!r}") from error
        numbers = (settlement.ordinal, *settlement.window, settlement.tokens, settlement.pool, settlement.fee)
        whole = all(type(number) is int for number in (*numbers, settlement.distributable))
        if not whole or canonical_bytes(settlement.to_document()) != canonical_bytes(document):
            raise CreditError("not a settlement document: a value is not spelt as settlements spell it")
        return settlement

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the document in canonical form."""
        return sha256(canonical_bytes(self.to_document())).hexdigest()


def _second_rule(values: Mapping[str, Any]) -> JsonObject:
    """The fields that settlements of the first rule have not."""
    if type(values["rule"]) is not int or values["rule"] != RULE:
        raise ValueError(f"rule {values['rule']!r} is not known")
    fractions = {name: int(values[name]) for name in ("pool_fraction", "fee_fraction")}
    return {**fractions, "standing": dict(purse_of(each) for each in values["standing"])}
