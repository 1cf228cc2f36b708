"""What reversals booked now take back of earlier periods, in money. Settles nothing; by which rule, the period says.

An earlier period is settled again without all that was reversed of it so far, and what it gave less than it did is
taken back, as far as it was not before. It is added up once, whatever the number of reversals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Connection

from rewards.periods import receipt_totals, sampled_totals
from rewards.periods.history import Period
from rewards.periods.period_end import PeriodFrame, refreeze
from rewards.periods.period_totals import count_again, period_of_receipt
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.balances import Opening
from rewards.settlement.document import FIRST_RULE
from rewards.settlement.payout import clawback
from rewards.settlement.policy import Currency
from rewards.settlement.settle import find_clawbacks
from rewards.store.receipts import reversal_pairs

Amounts = dict[str, int]


def clawbacks(
    connection: Connection, frame: PeriodFrame, earlier: tuple[Period, ...], names: Mapping[str, object]
) -> dict[str, Amounts]:
    """Earlier period -> client -> minor units of its currency, by the second rule.

    Args:
        connection: a transaction of the ledger.
        frame: of the period that takes back.
        earlier: every period before.
        names: the periods of which reversals of the frame take back.
    """
    amounts: dict[str, Amounts] = {}
    for place, period in enumerate(earlier):
        if period.name in names:
            before = earlier[:place]
            policy, rule = period.settlement.policy, period.settlement.rule
            opening = before[-1].settlement.opening(policy, rule) if before else Opening()
            without = _credit_without_reversals(connection, frame, period, before)
            taken = find_clawbacks(period.settlement, opening, without, _earlier_clawbacks(period, earlier))
            if taken:
                amounts[period.name] = dict(sorted(taken.items()))
    return amounts


def by_currency(earlier: tuple[Period, ...], taken: Mapping[str, Amounts]) -> dict[Currency, Amounts]:
    """Currency -> client -> minor units, of all earlier periods together."""
    sums: dict[Currency, Counter[str]] = {}
    for period in earlier:
        sums.setdefault(period.settlement.policy.money, Counter()).update(taken.get(period.name, {}))
    return {currency: dict(sorted(amounts.items())) for currency, amounts in sums.items() if amounts}


def first_rule(earlier: tuple[Period, ...], reversed_credit: Mapping[str, Mapping[str, int]]) -> Amounts:
    """Client -> minor units by the first rule: what all reversals take back of its line, less what was taken."""
    amounts: Counter[str] = Counter()
    for period in earlier:
        if period.name in reversed_credit:
            before: Counter[str] = Counter()
            for each in earlier:
                before.update(each.reversed.get(period.name, {}))
            amounts.update(_by_first_rule(period, before, reversed_credit[period.name]))
    return {client: amount for client, amount in sorted(amounts.items()) if amount}


def _by_first_rule(period: Period, before: Mapping[str, int], credit: Mapping[str, int]) -> Amounts:
    lines = {line.account: line for line in period.settlement.lines}
    return {
        client: clawback(lines[client], before.get(client, 0) + amount) - clawback(lines[client], before.get(client, 0))
        for client, amount in credit.items()
    }


def _earlier_clawbacks(period: Period, earlier: tuple[Period, ...]) -> Counter[str]:
    """Client -> minor units that were taken back of a period, by whichever rule."""
    amounts: Counter[str] = Counter()
    before: Counter[str] = Counter()
    for each in earlier:
        credit = each.reversed.get(period.name, {})
        if each.settlement.rule == FIRST_RULE:
            amounts.update(_by_first_rule(period, before, credit))
        else:
            amounts.update(each.clawbacks.get(period.name, {}))
        before.update(credit)
    return amounts


def _credit_without_reversals(
    connection: Connection, frame: PeriodFrame, period: Period, before: tuple[Period, ...]
) -> PeriodCredit:
    """What a period was settled over, less all of it that was reversed up to now."""
    settlement = period.settlement
    by_application = settlement.policy.allocation == "user_centric"
    is_sampled = settlement.sampling is not None
    if by_application or is_sampled:
        left = count_again(connection, period, before, by_application=by_application)
    else:
        left = receipt_totals.Tally(
            Counter({receipt_totals.EVERY: settlement.tokens}),
            Counter({(receipt_totals.EVERY, line.account): line.credit for line in settlement.lines}),
        )
    reversals = _reversals(connection, frame, period, before)
    taken = receipt_totals.receipts(connection, reversals, by_application=by_application)
    if is_sampled:
        taken.strata = sampled_totals.receipts(connection, reversals, by_application=by_application)
    left.add(taken)
    return PeriodCredit(
        window=period.window,
        tokens=left.tokens.total(),
        credit=left.accounts(),
        by_application=left.by_application() if by_application else None,
        tokens_by_application=dict(left.tokens) if by_application else None,
        strata=left.strata,
    )


def _reversals(connection: Connection, frame: PeriodFrame, period: Period, before: tuple[Period, ...]) -> list[int]:
    """The reversals up to now of responses that count in a period, but for those that it netted out itself."""
    every, reversal, original = reversal_pairs()
    pairs = every.where(reversal <= frame.up_to, original <= period.window[1])
    own = refreeze(period, before[-1] if before else None)
    handed_on = frozenset(frame.deferred)
    return [
        taking
        for taking, taken in connection.execute(pairs)
        if taking not in handed_on and not own.holds(taking) and period_of_receipt(taken, (*before, period)) is period
    ]
