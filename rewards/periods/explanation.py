"""What a client, or the commons, is paid in a closed period and why, from what the ledger keeps of it.

Has no rule of its own: the lines are those of `rewards.settlement`; here is what they are given: the stored
settlement, the one before it, and which reversals count in the period.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewards.credit import COMMONS
from rewards.errors import CreditError, LedgerError
from rewards.ledger.ledger import Ledger
from rewards.periods.history import Period, read_history
from rewards.periods.period_totals import ReversedResponse, reversed_responses
from rewards.settlement.balances import Opening
from rewards.settlement.commons_explanation import explain_commons
from rewards.settlement.explanation import explain_line
from rewards.settlement.explanation_lines import Step


@dataclass(frozen=True)
class Explanation:
    """A client's payout of a closed period, or that of the commons, line by line.

    Attributes:
        period: as it stands.
        client: whose payout; "commons" is no client's id.
        steps: the lines, the last of which is the payout.
        reversed: responses with credit of the client whose reversals count in the period; none of the commons.
    """

    period: Period
    client: str
    steps: tuple[Step, ...]
    reversed: tuple[ReversedResponse, ...]


def explain(ledger: Ledger, name: str, client: str) -> Explanation | None:
    """Why a client, or the commons, is paid what it is in a closed period; None where no such period or line is.

    Raises:
        LedgerError: a stored settlement was altered: a line does not follow from those before it, which is named.
    """
    with ledger.database.read() as connection:
        history = read_history(connection)
        period = history.find(name)
        if period is None or client not in {line.account for line in period.settlement.lines}:
            return None
        earlier = history.periods[: period.ordinal - 1]
        reversals = reversed_responses(connection, period, earlier).get(client, ())
    policy, rule = period.settlement.policy, period.settlement.rule
    opening = earlier[-1].settlement.opening(policy, rule) if earlier else Opening()
    own = {each.name for each in earlier if each.settlement.policy.money == policy.money}
    taken = {
        other: amounts[client] for other, amounts in period.clawbacks.items() if other in own and client in amounts
    }
    netted = sum(each.credit for each in reversals if each.period == name)
    try:
        if client == COMMONS:
            steps = explain_commons(period.settlement, opening)
        else:
            steps = explain_line(period.settlement, opening, client, taken, netted)
    except CreditError as error:
        raise LedgerError(f"a payout cannot be explained, as it was altered: {error}") from error
    return Explanation(period, client, steps, reversals)
