"""A frame, settled: what it comes to, what it takes back of earlier periods, and what that pays. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from rewards.files.strict_json import JsonObject
from rewards.periods.clawbacks import by_currency, clawbacks, first_rule
from rewards.periods.history import History, Period
from rewards.periods.period_end import PeriodFrame, refreeze
from rewards.periods.period_totals import PeriodContents, contents
from rewards.settlement.balances import Opening
from rewards.settlement.document import FIRST_RULE, RULE, Settlement
from rewards.settlement.policy import Policy
from rewards.settlement.settle import falls_due, settle


@dataclass(frozen=True)
class PreparedSettlement:
    """A settlement that is not written yet, and all that is written with it.

    Attributes:
        ordinal: number of the period.
        frame: its receipts.
        contents: what they come to.
        clawbacks: earlier period -> client -> minor units of its currency that are taken back.
        settlement: what is paid.
        is_empty: whether nothing was earned, nothing is taken back, and nothing falls due.
    """

    ordinal: int
    frame: PeriodFrame
    contents: PeriodContents
    clawbacks: Mapping[str, Mapping[str, int]]
    settlement: Settlement
    is_empty: bool

    def document(self, revealed: Sequence[JsonObject] = ()) -> JsonObject:
        """What is written of it, without its hash; with the sampling keys that are revealed by it, if there are any."""
        document: JsonObject = {
            "ordinal": self.ordinal,
            "window": {"after": self.frame.after, "up_to": self.frame.up_to},
            "until_us": self.frame.until_us,
            "deferred": list(self.frame.deferred),
            "left_out": list(self.contents.left_out),
            "taken_in": list(self.contents.taken_in),
            "reversed": {period: dict(credit) for period, credit in self.contents.reversed.items()},
            "settlement": self.settlement.to_document(),
        }
        if self.settlement.rule != FIRST_RULE:
            document["as_of_us"] = self.frame.as_of_us
            document["clawbacks"] = {period: dict(amounts) for period, amounts in self.clawbacks.items()}
        if revealed:
            document["sampling_keys"] = list(revealed)
        return document


def prepare_settlement(
    connection: Connection,
    history: History,
    name: str,
    ordinal: int,
    frame: PeriodFrame,
    policy: Policy,
    rule: int = RULE,
) -> PreparedSettlement:
    """Settle a frame with the holds of this moment.

    Args:
        connection: a transaction of the ledger.
        history: every period before, and the holds.
        name: of the period.
        ordinal: its number.
        frame: its receipts.
        policy: what it is settled by.
        rule: by which rule of settlement.

    Raises:
        CreditError: amounts that no ledger has.
        LedgerError: entries do not sum to tokens; somebody wrote past the ledger.
    """
    earlier = history.periods[: ordinal - 1]
    by_application = policy.allocation == "user_centric"
    sums = contents(connection, name, frame, earlier, history.held_targets("response"), by_application=by_application)
    taken: Mapping[str, Mapping[str, int]] = {}
    if rule == FIRST_RULE:
        standing = {policy.money: first_rule(earlier, sums.reversed)}
    else:
        taken = clawbacks(connection, frame, earlier, sums.reversed)
        standing = by_currency(earlier, taken)
    own = standing.pop(policy.money, {})
    credit = replace(sums.credit, clawbacks=own, standing_clawbacks=standing)
    opening = earlier[-1].settlement.opening(policy, rule) if earlier else Opening()
    held = history.held_targets("client")
    settlement = settle(name, ordinal, credit, policy, opening, held, rule)
    is_empty = sums.is_empty and not falls_due(ordinal, policy, opening, held)
    return PreparedSettlement(ordinal, frame, sums, taken, settlement, is_empty)


def settle_again(connection: Connection, history: History, period: Period) -> PreparedSettlement:
    """Settle a draft's own frame by its own policy and rule, with the holds of this moment.

    Raises:
        LedgerError: entries do not sum to tokens; somebody wrote past the ledger.
    """
    frame = refreeze(period, history.before(period.ordinal))
    policy, rule = period.draft.policy, period.draft.rule
    return prepare_settlement(connection, history, period.name, period.ordinal, frame, policy, rule)


def take_as_final(connection: Connection, history: History, period: Period) -> History:
    """The history as it would be if its last period, a draft, were finalised with the holds of this moment.

    Raises:
        LedgerError: entries do not sum to tokens; somebody wrote past the ledger.
    """
    prepared = settle_again(connection, history, period)
    final = replace(
        period,
        state="final",
        left_out=prepared.contents.left_out,
        taken_in=prepared.contents.taken_in,
        reversed=prepared.contents.reversed,
        clawbacks=prepared.clawbacks,
        final=prepared.settlement,
    )
    return replace(history, periods=(*history.periods[:-1], final))
