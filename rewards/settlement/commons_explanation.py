"""The payout of the commons, line by line: it has no cap, holdback, hold or minimum, and gets what clients do not.

As in `explanation`, each line follows from those before it, and is held against the stored figure. It speaks of sums
over all clients, of no client.
"""

from __future__ import annotations

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.settlement.account_line import Line
from rewards.settlement.balances import Opening
from rewards.settlement.document import Settlement
from rewards.settlement.explanation_lines import Sheet, Step, Unit, explain_gross, explain_pool, part_of, weights_of


def explain_commons(settlement: Settlement, opening: Opening) -> tuple[Step, ...]:
    """The arithmetic of the commons' line, from its credit to its payout, which is the last.

    Args:
        settlement: as it is stored.
        opening: what it began with: `Settlement.opening` of the one before.

    Raises:
        CreditError: the settlement has no line of the commons, or a line does not follow from those before it.
    """
    line = next((line for line in settlement.lines if line.account == COMMONS), None)
    if line is None:
        raise CreditError(f"the settlement of period {settlement.period!r} has no line of the commons")
    sheet = Sheet(settlement.period, COMMONS)
    _explain_credit(sheet, settlement, line)
    explain_pool(sheet, settlement, opening)
    _explain_part(sheet, settlement, line)
    explain_gross(sheet, line, opening.own.of(COMMONS))
    _explain_recovered(sheet, settlement, opening, line)
    _explain_payout(sheet, opening, line)
    return tuple(sheet.steps.values())


def _explain_credit(sheet: Sheet, settlement: Settlement, line: Line) -> None:
    sampling = settlement.sampling
    settled = 0 if sampling is None else sampling.settled.get(COMMONS, 0)
    late = f"of it {line.late} late: of responses made before the period before had ended" if line.late else ""
    held = f"{line.held_credit} of responses on hold are not counted" if line.held_credit else ""
    notes = "; ".join(filter(None, ("less what was reversed in the period itself", late, held)))
    sheet.give("measured", "Credit of measured responses", line.credit - settled, Unit.CREDIT, notes)
    by = "responses that were not measured, in the proportions of those that were" if sampling else ""
    sheet.give("settled", "Part of what was pending", settled, Unit.CREDIT, by)
    sheet.derive("credit", "Credit", "measured + settled", Unit.CREDIT, stored=line.credit)


def _explain_part(sheet: Sheet, settlement: Settlement, line: Line) -> None:
    """What no client has of the whole; under `pro_rata`, how much of it is by the commons' own credit."""
    whole, weights = sheet.amount("whole"), weights_of(settlement)
    clients = sum(part_of(each, whole) for each in settlement.lines if each.account != COMMONS)
    sheet.give("clients_part", "Parts of all clients", clients, Unit.FINE, "each explained by itself")
    sheet.derive("part", "Part of the whole", "whole - clients_part", Unit.FINE, _reason_of_part(settlement))
    if settlement.policy.allocation == "pro_rata" and COMMONS in weights:
        paid = sum(weights.values())
        sheet.give("paid_credit", "Credit of all who are paid", paid, Unit.CREDIT, "that above zero, with the commons")
        sheet.derive("by_credit", "Of it by credit", "whole * credit // paid_credit", Unit.FINE, "rounded down")
        note = "what clients at their caps may not have, and what rounding left"
        sheet.derive("beyond_credit", "Of it beyond that", "part - by_credit", Unit.FINE, note)
    if sheet.amount("part") != part_of(line, whole):
        raise CreditError(f"part of the commons in period {settlement.period!r} is not its stored {line.share}")


def _reason_of_part(settlement: Settlement) -> str:
    """Which rule of the policy gives the commons what clients have not."""
    policy = settlement.policy
    if settlement.unclaimed:
        return "no client had credit that the policy pays: the commons has the whole"
    if policy.allocation == "user_centric":
        return "what the fees of applications bring to no client, and what clients at their caps may not have"
    if policy.commons == "retain":
        return "its own by credit, and what clients at their caps may not have"
    return "the policy shares it among clients; what those at their caps may not have stays"


def _explain_recovered(sheet: Sheet, settlement: Settlement, opening: Opening, line: Line) -> None:
    """What clients gave back, less what other clients had of it."""
    clients = [each for each in settlement.lines if each.account != COMMONS]
    before = sum(opening.own.of(each.account).debt for each in clients)
    for name, label, amount in (
        ("clawbacks", "Taken back of all clients", sum(each.clawback for each in clients)),
        ("debts_before", "Owed by clients before", before),
        ("debts_after", "Owed by clients from now on", sum(each.balance.debt for each in clients)),
        ("recovered_by_clients", "Of it to other clients", sum(each.recovered for each in clients)),
    ):
        sheet.give(name, label, amount, Unit.MONEY)
    formula = "clawbacks + debts_before - debts_after - recovered_by_clients"
    sheet.derive("recovered", "Recovered from clients", formula, Unit.MONEY, stored=line.recovered)


def _explain_payout(sheet: Sheet, opening: Opening, line: Line) -> None:
    carry = opening.own.of(COMMONS).carry
    sheet.give("carried_in", "Carried in", carry, Unit.MONEY, "below zero it is owed" if carry < 0 else "")
    sheet.derive("payable", "Payable", "gross + carried_in + recovered", Unit.MONEY)
    note = "owed from now on" if line.carried_out else ""
    sheet.derive("carried_out", "Carried on", "min(payable, 0)", Unit.MONEY, note, stored=line.carried_out)
    sheet.derive("payout", "Payout", "payable - carried_out", Unit.MONEY, stored=line.payout)
