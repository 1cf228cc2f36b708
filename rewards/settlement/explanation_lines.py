"""The lines of an explanation, and those that every account has: pool, fee, gross. Settles nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.settlement.account_line import Line
from rewards.settlement.balances import Balance, Opening
from rewards.settlement.document import Settlement
from rewards.settlement.expressions import evaluate

_MILLIONTHS = 10**6
LARGEST_REMAINDER = "by largest remainder"


class Unit(StrEnum):
    """In what a line is counted."""

    CREDIT = "micro-credits"
    TOKENS = "tokens"
    MONEY = "minor units"
    FINE = "trillionths of a minor unit"
    PERCENT = "millionths of a percent"


@dataclass(frozen=True)
class Step:
    """One line of an explanation.

    Attributes:
        name: by which formulas of later lines name it.
        label: what it is called.
        amount: what it comes to.
        unit: in what it is counted.
        formula: what it is computed by, over the names of lines before it; empty where the settlement says it.
        note: the rule in words, or where it comes from; may be empty.
    """

    name: str
    label: str
    amount: int
    unit: Unit
    formula: str = ""
    note: str = ""


class Sheet:
    """The lines so far, whose amounts the next ones are computed from."""

    def __init__(self, period: str, client: str) -> None:
        self.steps: dict[str, Step] = {}
        self._whose = f"the line of {client!r} in the settlement of period {period!r}"

    def give(self, name: str, label: str, amount: int, unit: Unit, note: str = "") -> None:
        """A figure that the settlement, its policy or the one before it says."""
        self.steps[name] = Step(name, label, amount, unit, note=note)

    def derive(
        self, name: str, label: str, formula: str, unit: Unit, note: str = "", *, stored: int | None = None
    ) -> None:
        """A figure that follows from those above; and is what is stored, where that is said.

        Raises:
            CreditError: it is another.
        """
        amount = evaluate(formula, {name: step.amount for name, step in self.steps.items()})
        if stored not in (None, amount):
            raise CreditError(f"{self._whose} does not add up: {name} = {formula} = {amount}, stored is {stored}")
        self.steps[name] = Step(name, label, amount, unit, formula, note)

    def amount(self, name: str) -> int:
        """What a line comes to."""
        return self.steps[name].amount


def explain_pool(sheet: Sheet, settlement: Settlement, opening: Opening) -> None:
    """The pool, the fee of the service, and the whole that is shared, in trillionths.

    Raises:
        CreditError: one does not follow from those before it.
    """
    policy = settlement.policy
    if policy.price_per_million_tokens is not None:
        sheet.give("price", "Price of a million tokens", policy.price_per_million_tokens, Unit.MONEY, "of the policy")
        sheet.give("tokens", "Tokens of the period", settlement.tokens, Unit.TOKENS)
        fraction = opening.own.pool_fraction
        sheet.give("pool_fraction", "Left of earlier pools by rounding", fraction, Unit.FINE)
        exact = "(price * max(tokens, 0) * 10**6 + pool_fraction) // 10**12"
        rounded = "rounded down; the rest is carried"
        sheet.derive("pool", "Pool", exact, Unit.MONEY, rounded, stored=settlement.pool)
    else:
        source = "of the policy" if policy.fees is None else "the fees of all applications"
        sheet.give("pool", "Pool", settlement.pool, Unit.MONEY, source)
    sheet.give("fee_percent", "Fee of the service", millionths(policy.fee_percent), Unit.PERCENT, "of the pool")
    sheet.give("fee_fraction", "Left of earlier fees by rounding", opening.own.fee_fraction, Unit.FINE)
    formula = "(pool * fee_percent * 10**4 + fee_fraction) // 10**12"
    note = "rounded down; the rest is carried"
    sheet.derive("fee", "Fee", formula, Unit.MONEY, note, stored=settlement.fee)
    sheet.derive("distributable", "To be shared", "pool - fee", Unit.MONEY, stored=settlement.distributable)
    sheet.derive("whole", "The same, at least one unit", "max(distributable, 1) * 10**12", Unit.FINE)


def explain_gross(sheet: Sheet, line: Line, opening: Balance) -> None:
    """What the part comes to in whole units, and what rounding owes the account from now on.

    Raises:
        CreditError: one does not follow from those before it.
    """
    note = "nothing where nothing is to be shared"
    sheet.derive("due", "Due of it", "part * min(distributable, 1)", Unit.FINE, note)
    sheet.give("residue_before", "Owed by earlier roundings", opening.residue, Unit.FINE)
    sheet.derive("gross_down", "Due in whole units, rounded down", "due // 10**12", Unit.MONEY)
    rounding = line.gross - sheet.amount("gross_down")
    sheet.give(
        "rounding", "Units left by rounding down", rounding, Unit.MONEY, f"{LARGEST_REMAINDER}, with what is owed"
    )
    sheet.derive("gross", "Gross", "gross_down + rounding", Unit.MONEY, stored=line.gross)
    formula = "residue_before + due - gross * 10**12"
    sheet.derive("residue", "Owed by rounding from now on", formula, Unit.FINE, stored=line.residue)


def weights_of(settlement: Settlement) -> dict[str, int]:
    """Account -> credit above zero, of those whom the policy pays."""
    is_paid = settlement.policy.commons == "retain"
    return {
        line.account: line.credit
        for line in settlement.lines
        if line.credit > 0 and (line.account != COMMONS or is_paid)
    }


def part_of(line: Line, whole: int) -> int:
    """A line's part of the whole, in trillionths.

    Raises:
        CreditError: it is no whole number of them.
    """
    part = line.share * whole
    if part.denominator != 1:
        raise CreditError(f"share {line.share} of {line.account!r} is no whole number of trillionths of {whole}")
    return part.numerator


def millionths(percent: Fraction) -> int:
    """A percentage in millionths of a percent."""
    return int(percent * _MILLIONTHS)
