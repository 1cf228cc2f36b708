"""A payout explained, a client's or the commons', for whoever may see it, and its figures as people read them.

Computes nothing.
"""

from deployment.errors import NotFoundError
from deployment.schemas.explanations import ExplanationStep, PayoutExplanation, ReversedCredit
from rewards import money, periods
from rewards.ledger.ledger import Ledger
from rewards.settlement.explanation_lines import Unit

_FINE_DIGITS = 12
_PERCENT_DIGITS = 6


def explain_payout(ledger: Ledger, visible: str | None, period: str, client: str) -> PayoutExplanation:
    """Why a client, or the commons, is paid what it is in a closed period, as it stands.

    Args:
        ledger: where it is.
        visible: the only client whose payout may be explained; None is everybody's.
        period: the period's name.
        client: whose payout; that of "commons" is for whoever may see everybody's.

    Raises:
        NotFoundError: there is no such period, or no line of the client in it, or none for whoever may see `visible`.
        LedgerError: a stored settlement was altered.
    """
    explanation = periods.explain(ledger, period, client) if visible in (None, client) else None
    if explanation is None:
        raise _nothing_to_explain(ledger, period, client)
    settlement = explanation.period.settlement
    return PayoutExplanation(
        period=period,
        ordinal=explanation.period.ordinal,
        state=explanation.period.state,
        client=client,
        currency=settlement.policy.currency,
        minor_digits=settlement.policy.minor_digits,
        settlement_sha256=settlement.sha256,
        steps=[
            ExplanationStep.model_validate({**vars(step), "formula": step.formula or None})
            for step in explanation.steps
        ],
        reversed=[ReversedCredit.model_validate(vars(response)) for response in explanation.reversed],
    )


def _nothing_to_explain(ledger: Ledger, period: str, client: str) -> NotFoundError:
    """Which of the two is wrong; of a client that may not be seen no more than of one that does not exist."""
    names = [each.name for each in periods.all(ledger)]
    if period not in names:
        last = f"; the last one is {names[-1]!r}" if names else ""
        return NotFoundError(f"no period {period!r} is closed{last}", param="period", code="explanation_not_found")
    return NotFoundError(
        f"there is nothing to explain of client {client!r} in period {period!r}: it has no line there",
        param="client",
        code="explanation_not_found",
    )


def readable_amount(step: ExplanationStep, currency: str, digits: int) -> str:
    """What a line comes to, with its unit, exactly."""
    match step.unit:
        case Unit.MONEY:
            return money.write_readable(step.amount, currency, digits)
        case Unit.FINE:
            return money.write_readable(step.amount, currency, digits + _FINE_DIGITS)
        case Unit.PERCENT:
            decimal = money.write_readable(step.amount, "", _PERCENT_DIGITS)
            return f"{decimal.rstrip('0').rstrip('.')} %"
        case Unit.CREDIT | Unit.TOKENS:
            return f"{money.write_readable(step.amount, '', 0)} {step.unit}"


def readable_formula(step: ExplanationStep) -> str:
    """How a line follows from those before it, in signs that people write; empty where the settlement says it."""
    formula = step.formula or ""
    for sign, written in (("**", "^"), ("//", "÷"), ("*", "×"), (" - ", " − ")):
        formula = formula.replace(sign, written)
    return formula
