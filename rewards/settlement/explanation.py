"""One client's payout, line by line, each of which follows from lines before it to the unit. Settles nothing.

Every figure is the settlement's own, or is computed from figures above it by the formula that stands beside it, in
integers alone. Where the settlement says what a formula comes to, the two are held against each other: what does not
come to the stored figure is refused, and never shown. It speaks of one client and of sums, of no other client.
"""

from __future__ import annotations

from collections.abc import Mapping

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.largest_remainder import divide
from rewards.money import write_readable
from rewards.settlement.account_line import Line
from rewards.settlement.allocation import capped_clients
from rewards.settlement.balances import Balance, Opening
from rewards.settlement.document import Settlement
from rewards.settlement.explanation_lines import (
    LARGEST_REMAINDER,
    Sheet,
    Step,
    Unit,
    explain_gross,
    explain_pool,
    millionths,
    part_of,
    weights_of,
)
from rewards.settlement.policy import Policy


def explain_line(
    settlement: Settlement, opening: Opening, client: str, taken: Mapping[str, int], reversed_credit: int
) -> tuple[Step, ...]:
    """The arithmetic of a client's line, from its credit to its payout, which is the last.

    Args:
        settlement: as it is stored.
        opening: what it began with: `Settlement.opening` of the one before.
        client: whose line.
        taken: earlier period -> minor units of this currency that this one takes back of it.
        reversed_credit: micro-credits of the client's responses that count here and were reversed here.

    Raises:
        CreditError: the settlement has no line of that client, or a line does not follow from those before it.
    """
    line = next((line for line in settlement.lines if line.account == client and client != COMMONS), None)
    if line is None:
        raise CreditError(f"the settlement of period {settlement.period!r} has no line of a client {client!r}")
    sheet = Sheet(settlement.period, client)
    _explain_credit(sheet, settlement, line, reversed_credit)
    explain_pool(sheet, settlement, opening)
    _explain_part(sheet, settlement, line)
    explain_gross(sheet, line, opening.own.of(client))
    _explain_clawback(sheet, line, opening.own.of(client), taken)
    _explain_payout(sheet, settlement, line, opening.own.of(client))
    return tuple(sheet.steps.values())


def _explain_credit(sheet: Sheet, settlement: Settlement, line: Line, reversed_credit: int) -> None:
    sampling = settlement.sampling
    settled = 0 if sampling is None else sampling.settled.get(line.account, 0)
    measured = line.credit - settled + reversed_credit
    late = f"of it {line.late} late: of responses made before the period before had ended" if line.late else ""
    held = f"{line.held_credit} of responses on hold are not counted" if line.held_credit else ""
    notes = "; ".join(filter(None, (late, held)))
    sheet.give("measured", "Credit of measured responses", measured, Unit.CREDIT, notes)
    sheet.give("reversed", "Reversed in the period itself", reversed_credit, Unit.CREDIT)
    by = "responses that were not measured, in the proportions of those that were" if sampling else ""
    sheet.give("settled", "Part of what was pending", settled, Unit.CREDIT, by)
    sheet.derive("credit", "Credit", "measured - reversed + settled", Unit.CREDIT, stored=line.credit)


def _explain_part(sheet: Sheet, settlement: Settlement, line: Line) -> None:
    """What of the whole the client is entitled to; the document says it as a fraction of the whole."""
    whole, policy = sheet.amount("whole"), settlement.policy
    part = part_of(line, whole)
    sheet.give("cap_percent", "Cap of the client", millionths(policy.cap(line.account)), Unit.PERCENT, "of the whole")
    sheet.derive("cap", "Cap", "whole * cap_percent // 10**8", Unit.FINE)
    weights = weights_of(settlement)
    if policy.allocation == "user_centric":
        how = "the fee of each application by the credit in its own responses; nobody above the cap"
        sheet.give("part", "Part of the whole", part, Unit.FINE, how)
    elif line.account not in weights:
        sheet.give("part", "Part of the whole", part, Unit.FINE, "only credit above zero is paid")
    else:
        _explain_pro_rata(sheet, settlement, line, weights)
    if sheet.amount("part") != part:
        raise CreditError(f"part of {line.account!r} in period {settlement.period!r} is not its stored {line.share}")


def _explain_pro_rata(sheet: Sheet, settlement: Settlement, line: Line, weights: Mapping[str, int]) -> None:
    whole, part = sheet.amount("whole"), part_of(line, sheet.amount("whole"))
    commons = "the commons included" if settlement.policy.commons == "retain" else "without the commons"
    paid = sum(weights.values())
    sheet.give("paid_credit", "Credit of all who are paid", paid, Unit.CREDIT, f"that above zero, {commons}")
    by_credit = "whole * credit // paid_credit"
    if 0 <= part - whole * line.credit // paid <= 1:
        sheet.derive("part_down", "By credit, rounded down", by_credit, Unit.FINE)
    elif part == sheet.amount("cap"):
        sheet.derive("by_credit", "By credit, without caps", by_credit, Unit.FINE)
        note = "what it would have above its cap goes to the clients below theirs, and what those may not have to the "
        sheet.derive("part", "Part of the whole", "cap", Unit.FINE, f"{note}commons")
        return
    else:
        _explain_redistribution(sheet, settlement, weights)
    rest = part - sheet.amount("part_down")
    if rest not in (0, 1):
        raise CreditError(f"part of {line.account!r} in period {settlement.period!r} is not what its credit brings")
    sheet.give("part_rest", "Trillionths left by that division", rest, Unit.FINE, LARGEST_REMAINDER)
    sheet.derive("part", "Part of the whole", "part_down + part_rest", Unit.FINE)


def _explain_redistribution(sheet: Sheet, settlement: Settlement, weights: Mapping[str, int]) -> None:
    """What is left of the whole when clients at their caps and the commons have theirs, by the credit of the others."""
    whole = sheet.amount("whole")
    clients = {each.account: part_of(each, whole) for each in settlement.lines if each.account != COMMONS}
    caps = {client: int(whole * settlement.policy.cap(client) / 100) for client in weights if client != COMMONS}
    before = divide(whole, weights, salt=settlement.period)
    # By the rule and not by who has its cap: rounded up, one that was not cut to it may come to it as well.
    capped = capped_clients(whole - before.get(COMMONS, 0), weights, caps)
    below = sum(amount for client, amount in weights.items() if client != COMMONS and client not in capped)
    sheet.derive("by_credit", "By credit, without caps", "whole * credit // paid_credit", Unit.FINE)
    sheet.give("commons_part", "Part of the commons", whole - sum(clients.values()), Unit.FINE)
    sheet.give("capped", "Parts of all clients at their caps", sum(capped.values()), Unit.FINE)
    sheet.give("below_credit", "Credit of the clients below theirs", below, Unit.CREDIT)
    sheet.derive("left", "Left for the clients below", "whole - commons_part - capped", Unit.FINE)
    sheet.derive("part_down", "By their credit, rounded down", "left * credit // below_credit", Unit.FINE)


def _explain_clawback(sheet: Sheet, line: Line, opening: Balance, taken: Mapping[str, int]) -> None:
    """What is taken back, by the earlier period that it was paid in; the first rule did not tell those apart."""
    terms = []
    for number, (period, amount) in enumerate(taken.items(), 1):
        terms.append(f"clawback_{number}")
        note = "what the reversed responses had added to it: it is settled again without them"
        sheet.give(terms[-1], f"Taken back of period {period}", amount, Unit.MONEY, note)
    rest = line.clawback - sum(taken.values())
    if rest or not terms:
        terms.append("clawback_rest")
        is_standing = rest == opening.clawback
        note = "stood until a period was settled in this currency" if rest and is_standing else ""
        sheet.give(terms[-1], "Taken back of earlier periods", rest, Unit.MONEY, note)
    sheet.derive("clawback", "Claw-back", " + ".join(terms), Unit.MONEY, stored=line.clawback)


def _explain_payout(sheet: Sheet, settlement: Settlement, line: Line, opening: Balance) -> None:
    policy, ordinal = settlement.policy, settlement.ordinal
    sheet.give(
        "carried_in", "Carried in", opening.carry, Unit.MONEY, "below zero it is owed" if opening.carry < 0 else ""
    )
    due = [amount for release, amount in opening.holdbacks if release <= ordinal]
    sheet.give("released_holdback", "Holdback that returns", sum(due), Unit.MONEY, "of earlier periods")
    sheet.give("released_hold", "Released from hold", line.released_hold, Unit.MONEY)
    sheet.give("recovered", "Recovered from others", line.recovered, Unit.MONEY, _recovery_note(policy))
    sheet.give("holdback_percent", "Holdback", millionths(policy.holdback_percent), Unit.PERCENT, "of the gross")
    returns = f"rounded down; returns in period number {ordinal + policy.holdback_release_after}"
    formula = "gross * holdback_percent // 10**8"
    sheet.derive("holdback", "Kept back", formula, Unit.MONEY, returns if line.holdback else "", stored=line.holdback)
    came = "gross + carried_in + released_holdback + released_hold + recovered"
    sheet.derive("balance", "What comes less what goes", f"{came} - clawback - holdback", Unit.MONEY)
    kept = sum(amount for release, amount in opening.holdbacks if release > ordinal)
    sheet.give("kept_before", "Holdbacks of before that are still kept", kept, Unit.MONEY)
    formula = "min(max(-balance, 0), kept_before + holdback)"
    note = "against a debt, oldest first"
    sheet.derive("drawn_holdback", "Holdback used", formula, Unit.MONEY, note, stored=line.drawn_holdback)
    formula = "kept_before + holdback - drawn_holdback"
    stored = sum(amount for _, amount in line.holdbacks)
    sheet.derive("kept", "Holdbacks kept from now on", formula, Unit.MONEY, _returns(line, policy), stored=stored)
    sheet.derive("payable", "Payable", "balance + drawn_holdback", Unit.MONEY)
    _explain_rest(sheet, line, opening, policy)


def _explain_rest(sheet: Sheet, line: Line, opening: Balance, policy: Policy) -> None:
    """What of the payable is withheld, carried and paid."""
    if line.held or opening.held > line.released_hold:
        note = "the client is on hold"
        sheet.derive("held", "Withheld by a hold", "max(payable, 0)", Unit.MONEY, note, stored=line.held)
    else:
        sheet.give("held", "Withheld by a hold", line.held, Unit.MONEY)
    sheet.give("held_before", "Withheld before", opening.held, Unit.MONEY)
    formula = "held_before - released_hold + held"
    sheet.derive("held_total", "Withheld from now on", formula, Unit.MONEY, stored=line.held_total)
    sheet.give("minimum", "Least that is paid", policy.least_payout, Unit.MONEY, "of the policy")
    left = sheet.amount("payable") - line.held
    if left >= sheet.amount("minimum"):
        sheet.give("carried_out", "Carried on", line.carried_out, Unit.MONEY, "nothing, as it is at least the minimum")
    else:
        note = "owed from now on" if left < 0 else "below the minimum" if left else ""
        sheet.derive("carried_out", "Carried on", "payable - held", Unit.MONEY, note, stored=line.carried_out)
    sheet.derive("payout", "Payout", "payable - held - carried_out", Unit.MONEY, stored=line.payout)


def _recovery_note(policy: Policy) -> str:
    if policy.commons == "retain":
        return "the commons has what clients give back"
    return "what clients gave back, by credit, among those who gave nothing back; by largest remainder"


def _returns(line: Line, policy: Policy) -> str:
    digits = policy.minor_digits
    amounts = ((write_readable(amount, policy.currency, digits), release) for release, amount in line.holdbacks)
    return ", ".join(f"{amount} in period number {release}" for amount, release in amounts)
