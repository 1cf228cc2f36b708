"""Pure: credit of a period, a policy and what is carried in, integer payouts out. Knows no SQL, clock or float.

The rule, whole, so that it can be written a second time from these words. It is rule 2; a settlement that names no rule
is of rule 1, whose differences are at the end. Money is in minor units of a currency; UNIT is 10^12, and fractions of
money are integers of trillionths of a minor unit. A currency is its code with its digits: the same code with other
digits is another currency. The salt of every tie-break is the name of the period.

A period in which responses were pending is settled after step 0; without any, nothing is said of it.

*divide(total, weights)*: each gets floor(total * weight / sum of weights); what is left goes one by one to the largest
remainders of that division, of equal ones to the smallest SHA-256(salt, 0x00, account).

 0. **Pending.** Responses that say a fraction (`sampling.fraction`) are of the stratum of their consortium, model hash
    and fraction; under `user_centric` also of their application. A reversal is of the stratum of its response, and nets
    it out. What is pending in a stratum becomes credit, of its application: divide(pending, measured credit of the
    stratum by account, where above zero); where that is nothing, the commons'. Then the pending account is nobody's.
    The standard errors that come of it are in `settlement.pending`.
 1. **Purse.** What is carried in the policy's currency: of each account residue, carry, held, holdbacks (ordinal of
    release, amount) and claw-back, and the fractions of pool and fee. Purses of other currencies stand: nothing in them
    changes but by step 11. Nothing is ever converted.
 2. **Pool.** `pool`; or the sum of `fees`; or price * max(tokens, 0) / 10^6 exactly, plus the purse's pool fraction,
    rounded down to whole units: the rest is the new pool fraction. With `pool` or `fees` the fraction stays.
 3. **Fee.** pool * fee_percent / 100 exactly, plus the purse's fee fraction, rounded down; the rest is the new fee
    fraction. Distributable is pool - fee. The whole is max(distributable, 1) * UNIT trillionths.
 4. **Who is paid.** Accounts whose net credit in the period is above zero; under `commons: distribute` not the commons.
 5. **Parts.** `pro_rata`: divide(whole, credit of who is paid); when nobody is, the commons has the whole, unclaimed.
    `user_centric`: divide(whole, fees) is what each application brings. An application with tokens above zero brings to
    clients floor(brought * min(fee, max_price * tokens / 10^6) / fee), exactly, without a maximum price all of it;
    that is divided by the positive credit, in its own responses, of who is paid. Everything else is the commons'.
    Unclaimed is when no application in `fees` has such credit.
 6. **Caps.** A client's cap is its percentage of the whole. While some client is above: whoever would exceed its cap if
    all that clients have, less the caps of those already capped, were shared by weight (credit; under `user_centric`
    the parts of step 5) among the uncapped, gets its cap; the others get divide(what is left, weights). The commons
    keeps its part and gets what no client may take.
 7. **Gross.** Parts are rounded to whole units with the residues of the purse (`rounding.whole_units`); when nothing is
    distributable every part counts as 0 here. Residue after = residue before + part - gross * UNIT.
 8. **Clients, one by one.** Claw-back = that of the period in this currency + that of the purse. Holdback =
    floor(gross * holdback_percent / 100), released in ordinal + holdback_release_after. Released are the purse's
    holdbacks with an ordinal up to this period's, and, for a client not on hold, what was held. Payable = gross + carry
    + both releases - claw-back - holdback. Below zero, it draws on the holdbacks that are still kept, the new one
    included, oldest first, up to zero. What is then payable above zero is held if the client is on hold; else paid, if
    it is at least the minimum and above zero; else carried. Below zero it is carried as a debt.
 9. **Recovered** is, over all clients, claw-back + debt before - debt after. Under `commons: distribute` it is
    divided, in whole units, by credit, among the clients with credit above zero who had no claw-back and no debt
    before; it is added to what is payable to them in step 8. Where there is none, and under `retain`, it is the
    commons'.
10. **Commons.** gross + carry + recovered is paid if above zero, else carried.
11. **Claw-backs of other currencies** are added to the claw-back of the client in the purse of that currency.
12. **What a claw-back is.** Responses of an earlier period P that were reversed later, all of them up to now: P is
    settled again by its own policy, rule, name, purse, claw-backs and holds, with their credit and tokens taken out
    (before step 0: what was measured of them speaks for nobody any more).
    What P was to a client is its gross and its part of what was recovered (9) in P, less the same in that, if that is
    above zero; less what was taken back from P before, if that is above zero, it is the claw-back of now, in the
    currency of P. So all reversals of a period
    together are taken back jointly, their order within a period does not matter, nobody ever gets a claw-back back, and
    when all responses of P are reversed everything that P gave to clients is taken back.
13. **Empty** is a period in which no receipt counts and no reversal takes back, if nothing falls due either, now or
    later: no client has a claw-back in the purse, and of none who is not on hold are carry + held + holdbacks due -
    claw-back at least the minimum and above zero, or is a holdback still kept, which only periods bring nearer.
    An empty period is not closed, nor is one that only what falls due makes by a policy whose `pool` is above zero.

Rule 1: the fractions of steps 2 and 3 are dropped; in step 5 max_price * tokens / 10^6 is rounded down; balances pass
on whatever the currency, and there is no other purse; step 9 gives all to the commons; step 12 takes back
floor(reversed credit * gross / credit) of the client's line in P, at most the gross, of all reversals so far, less that
of those before; and a period is empty when no receipt counts.

No money is made or lost. With a client's money being what is carried, held and kept back of it, and debts apart:

    pool + money before + debt of the commons after = fee + payouts + money after + debt of the commons before

in each currency, and over a chain of periods the pools and fees differ from the exact ones by less than one unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.largest_remainder import divide
from rewards.settlement.account_line import Line
from rewards.settlement.allocation import Allocation, PeriodCredit, allocate, check_amounts
from rewards.settlement.balances import Balance, Opening, Purse, check_purse
from rewards.settlement.document import FIRST_RULE, RULE, Settlement
from rewards.settlement.payout import pay_client, pay_commons
from rewards.settlement.policy import LARGEST, Currency, Policy
from rewards.settlement.rounding import UNIT, whole_units

_NOTHING = Opening()


def settle(
    period: str,
    ordinal: int,
    credit: PeriodCredit,
    policy: Policy,
    opening: Opening = _NOTHING,
    held_clients: frozenset[str] = frozenset(),
    rule: int = RULE,
) -> Settlement:
    """Divide the policy's pool by credit, round it to minor units, and pay, hold, keep back or carry each part.

    Args:
        period: name of the period; also the salt of every tie-break.
        ordinal: number of the period, one more than that of the period before.
        credit: what the ledger says about the window.
        policy: pool and rules.
        opening: what is carried, from `Settlement.opening` of the period before.
        held_clients: clients who are paid nothing until their hold is released.
        rule: by which; 1 for a period drafted when there was no other.

    Raises:
        CreditError: an input that no ledger has, such as a residue of a unit or a hold on the commons; it is named.
    """
    _check(period, ordinal, credit, policy, opening, held_clients)
    credit = credit.settle_pending(period)
    allocation = allocate(period, credit, policy, opening.own, is_first_rule=rule == FIRST_RULE)
    lines = _paid_lines(
        _gross_lines(period, credit, allocation, opening.own),
        credit,
        policy,
        opening.own,
        salt=period,
        ordinal=ordinal,
        held_clients=held_clients,
        is_first_rule=rule == FIRST_RULE,
    )
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
        rule=rule,
        pool_fraction=allocation.pool_fraction,
        fee_fraction=allocation.fee_fraction,
        standing=_standing(credit, opening),
        sampling=credit.sampling(period),
    )
    _check_conservation(settlement, opening.own)
    return settlement


def find_clawbacks(
    paid: Settlement, opening: Opening, without: PeriodCredit, before: Mapping[str, int]
) -> dict[str, int]:
    """Client -> minor units that are taken back of a settlement for what was reversed; those without are absent.

    Args:
        paid: the settlement.
        opening: what it began with.
        without: its credit and tokens without all that was reversed up to now.
        before: client -> minor units that were taken back of it before.
    """
    balances = {line.account: opening.own.of(line.account) for line in paid.lines if line.account != COMMONS}
    own = {line.account: line.clawback - balances[line.account].clawback for line in paid.lines if line.clawback}
    on_hold = frozenset(
        line.account
        for line in paid.lines
        if line.account in balances and balances[line.account].held and not line.released_hold
    )  # a hold that withheld nothing until then changes nothing that anybody gives back
    alone = replace(without, clawbacks=own, standing_clawbacks={})
    again = settle(paid.period, paid.ordinal, alone, paid.policy, opening, on_hold, paid.rule)
    gained = {line.account: line.gross + line.recovered for line in again.lines}
    owed = {
        line.account: line.gross + line.recovered - gained.get(line.account, 0) - before.get(line.account, 0)
        for line in paid.lines
        if line.account != COMMONS
    }
    return {client: amount for client, amount in owed.items() if amount > 0}


def falls_due(ordinal: int, policy: Policy, opening: Opening, held_clients: frozenset[str]) -> bool:
    """Whether a period of that ordinal would pay or take back anything though nothing was earned in it.

    Also where it would only bring a kept holdback nearer: that is counted in periods, and would else be locked in for
    as long as nobody earns.
    """
    least = policy.least_payout
    return any(
        balance.clawback
        or balance.due(ordinal, on_hold=client in held_clients) >= least
        or (client not in held_clients and any(release > ordinal for release, _ in balance.holdbacks))
        for client, balance in opening.own.balances.items()
        if client != COMMONS
    )


def _gross_lines(period: str, credit: PeriodCredit, allocation: Allocation, purse: Purse) -> list[Line]:
    """A line for each account with its gross and its new residue, in the order of names."""
    accounts = sorted({COMMONS, *credit.accounts, *allocation.parts, *purse.balances})
    parts = {account: allocation.parts.get(account, 0) for account in accounts}
    due = parts if allocation.distributable else dict.fromkeys(accounts, 0)
    residues = {account: balance.residue for account, balance in purse.balances.items()}
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


def _paid_lines(
    gross: list[Line],
    credit: PeriodCredit,
    policy: Policy,
    purse: Purse,
    *,
    salt: str,
    ordinal: int,
    held_clients: frozenset[str],
    is_first_rule: bool,
) -> dict[str, Line]:
    """Account -> its line from gross to payout, with what was recovered where the policy sends it (steps 8 to 10)."""

    def pay_line(line: Line, recovered: int = 0) -> Line:
        balance = purse.of(line.account)
        clawback = credit.clawbacks.get(line.account, 0) + balance.clawback
        on_hold = line.account in held_clients
        return pay_client(line, balance, clawback, ordinal=ordinal, policy=policy, on_hold=on_hold, recovered=recovered)

    lines = {line.account: line if line.account == COMMONS else pay_line(line) for line in gross}
    recovered = sum(_recovery(line, purse.of(client)) for client, line in lines.items())
    shared = {} if is_first_rule else _redistribute(salt, recovered, lines, policy)
    lines |= {line.account: pay_line(line, shared[line.account]) for line in gross if line.account in shared}
    kept = recovered - sum(shared.values())
    lines[COMMONS] = pay_commons(lines[COMMONS], purse.of(COMMONS), kept)
    return lines


def _redistribute(period: str, recovered: int, lines: Mapping[str, Line], policy: Policy) -> dict[str, int]:
    """Client -> its part of what was recovered; nobody has one where the commons keeps it."""
    if policy.commons != "distribute" or not recovered:
        return {}
    weights = {
        account: line.credit
        for account, line in lines.items()
        if account != COMMONS and line.credit > 0 and not line.clawback and line.carried_in >= 0
    }
    return divide(recovered, weights, salt=period) if weights else {}


def _standing(credit: PeriodCredit, opening: Opening) -> dict[Currency, Purse]:
    """The purses of other currencies, with the claw-backs that will be settled in them; empty ones are dropped."""
    standing = dict(opening.standing)
    for currency, clawbacks in credit.standing_clawbacks.items():
        purse = standing.get(currency, Purse())
        balances = dict(purse.balances)
        for client, amount in clawbacks.items():
            balance = purse.of(client)
            balances[client] = replace(balance, clawback=balance.clawback + amount)
        standing[currency] = replace(purse, balances=balances)
    return {
        currency: replace(purse, balances=purse.open_balances)
        for currency, purse in sorted(standing.items())
        if not purse.is_empty
    }


def _recovery(line: Line, opening: Balance) -> int:
    """What a client gave back: the claw-back and the old debt, less what it still owes."""
    if line.account == COMMONS:
        return 0
    return line.clawback + opening.debt - line.balance.debt


def _check(
    period: str,
    ordinal: int,
    credit: PeriodCredit,
    policy: Policy,
    opening: Opening,
    held_clients: frozenset[str],
) -> None:
    if not period or not period.isprintable():
        raise CreditError(f"name of the period must be non-empty printable text, not {period!r}")
    if type(ordinal) is not int or not 0 <= ordinal <= LARGEST:
        raise CreditError(f"ordinal of period {period!r} must be an integer from 0 to {LARGEST}, not {ordinal!r}")
    if COMMONS in held_clients:
        raise CreditError("the commons cannot be on hold; a hold is on a client")
    if policy.money in {*opening.standing, *credit.standing_clawbacks}:
        raise CreditError(f"what stands in {policy.currency} is settled by this policy, and cannot stand as well")
    for purse in (opening.own, *opening.standing.values()):
        check_amounts("carried balance", {account: balance.carry for account, balance in purse.balances.items()})
        check_purse(purse)


def _check_conservation(settlement: Settlement, purse: Purse) -> None:
    """Assert that no money was made or lost, on no line and in all."""
    for line in settlement.lines:
        came = line.gross + line.carried_in + line.released_holdback + line.released_hold
        left = line.clawback + line.holdback + line.held + line.payout + line.carried_out
        assert came + line.drawn_holdback + line.recovered == left
    assert settlement.distributable == sum(line.gross for line in settlement.lines)
    commons_debts = settlement.next_balances[COMMONS].debt - purse.of(COMMONS).debt
    before = settlement.pool + sum(balance.money for balance in purse.balances.values()) + commons_debts
    payouts = sum(line.payout for line in settlement.lines)
    assert before == settlement.fee + payouts + sum(balance.money for balance in settlement.next_balances.values())
