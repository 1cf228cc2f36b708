"""Pure: credit of a period, a policy and carried balances in, integer payouts out. Knows no SQL, clock or float.

The steps: pool and fee, parts by credit under caps (`allocation`), whole minor units with carried residues
(`rounding`), then each account from gross to payout (`lines`). The same input gives the same bytes.

No money is made or lost. With a client's money being what is carried, held and kept back of it, and debts apart:

    pool + money before + debt of the commons after = fee + payouts + money after + debt of the commons before

and what the commons recovers is the claw-backs and the debts before, less the debts after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from rewards.allocation import Allocation, PeriodCredit, allocate, check_amounts
from rewards.credit import COMMONS, canonical_bytes
from rewards.errors import CreditError
from rewards.lines import Balance, Line, check_balance, clawback, pay_client, pay_commons
from rewards.policy import LARGEST, Policy
from rewards.rounding import UNIT, whole_units

__all__ = ["Balance", "Line", "PeriodCredit", "Settlement", "clawback", "settle"]

_NOTHING: Mapping[str, Balance] = MappingProxyType({})


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

    @property
    def carried(self) -> dict[str, Balance]:
        """Account -> what it carries to the next period."""
        return {line.account: line.balance for line in self.lines}

    def to_document(self) -> dict[str, Any]:
        """Plain data for JSON, read back by `from_document`.

        Credit and residues are decimal text, shares "numerator/denominator", money integers that JSON keeps exact.
        """
        after, up_to = self.window
        return {
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


def settle(
    period: str,
    ordinal: int,
    credit: PeriodCredit,
    policy: Policy,
    carried: Mapping[str, Balance] = _NOTHING,
    held_clients: frozenset[str] = frozenset(),
) -> Settlement:
    """Divide the policy's pool by credit, round it to minor units, and pay, hold, keep back or carry each part.

    Args:
        period: name of the period; also the salt of every tie-break.
        ordinal: number of the period, one more than that of the period before.
        credit: what the ledger says about the window.
        policy: pool and rules.
        carried: account -> balance, from `Settlement.carried` of the period before.
        held_clients: clients who are paid nothing until their hold is released.

    Raises:
        CreditError: an input that no period and no ledger has, such as pending credit, a residue of a unit or more, or
            a hold on the commons; it is named.
    """
    _check(period, ordinal, carried, held_clients)
    allocation = allocate(period, credit, policy)
    lines = {
        line.account: line
        if line.account == COMMONS
        else pay_client(
            line,
            carried.get(line.account, Balance()),
            credit.clawbacks.get(line.account, 0),
            ordinal=ordinal,
            policy=policy,
            on_hold=line.account in held_clients,
        )
        for line in _gross_lines(period, credit, allocation, carried)
    }
    recovered = sum(_recovered(line, carried.get(client, Balance())) for client, line in lines.items())
    lines[COMMONS] = pay_commons(lines[COMMONS], carried.get(COMMONS, Balance()), recovered)
    settlement = Settlement(
        period=period,
        ordinal=ordinal,
        window=credit.window,
        tokens=credit.tokens,
        policy=policy,
        pool=allocation.pool,
        fee=allocation.fee,
        distributable=allocation.distributable,
        lines=tuple(lines.values()),
        unclaimed=allocation.unclaimed,
    )
    _check_conservation(settlement, carried)
    return settlement


def _gross_lines(
    period: str, credit: PeriodCredit, allocation: Allocation, carried: Mapping[str, Balance]
) -> list[Line]:
    """A line for each account with its gross and its new residue, in the order of names."""
    accounts = sorted({COMMONS, *credit.accounts, *allocation.parts, *carried})
    parts = {account: allocation.parts.get(account, 0) for account in accounts}
    due = parts if allocation.distributable else dict.fromkeys(accounts, 0)
    residues = {account: balance.residue for account, balance in carried.items()}
    gross = whole_units(due, residues, salt=period)
    return [
        Line(
            account=account,
            credit=credit.credit.get(account, 0),
            late=credit.late.get(account, 0),
            held_credit=credit.held.get(account, 0),
            share=Fraction(parts[account], allocation.whole),
            residue=residues.get(account, 0) + due[account] - gross[account] * UNIT,
            gross=gross[account],
        )
        for account in accounts
    ]


def _recovered(line: Line, opening: Balance) -> int:
    """What a client gave back: the claw-back and the old debt, less what it still owes."""
    if line.account == COMMONS:
        return 0
    return line.clawback + opening.debt - line.balance.debt


def _check(period: str, ordinal: int, carried: Mapping[str, Balance], held_clients: frozenset[str]) -> None:
    if not period or not period.isprintable():
        raise CreditError(f"name of the period must be non-empty printable text, not {period!r}")
    if type(ordinal) is not int or not 0 <= ordinal <= LARGEST:
        raise CreditError(f"ordinal of period {period!r} must be an integer from 0 to {LARGEST}, not {ordinal!r}")
    if COMMONS in held_clients:
        raise CreditError("the commons cannot be on hold; a hold is on a client")
    check_amounts("carried balance", {account: balance.carry for account, balance in carried.items()})
    for account, balance in carried.items():
        check_balance(account, balance)


def _check_conservation(settlement: Settlement, carried: Mapping[str, Balance]) -> None:
    """Assert that no money was made or lost, on no line and in all."""
    for line in settlement.lines:
        came = line.gross + line.carried_in + line.released_holdback + line.released_hold
        left = line.clawback + line.holdback + line.held + line.payout + line.carried_out
        assert came + line.drawn_holdback + line.recovered == left
    assert settlement.distributable == sum(line.gross for line in settlement.lines)
    commons_debts = settlement.carried[COMMONS].debt - carried.get(COMMONS, Balance()).debt
    before = settlement.pool + sum(balance.money for balance in carried.values()) + commons_debts
    payouts = sum(line.payout for line in settlement.lines)
    assert before == settlement.fee + payouts + sum(balance.money for balance in settlement.carried.values())
