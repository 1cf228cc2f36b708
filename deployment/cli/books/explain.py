"""`protoken explain`: why a client, or the commons, is paid what it is, line by line."""

from typing import Annotated

import typer

from deployment.books.explanations import explain_payout, readable_amount, readable_formula
from deployment.cli.number_format import credit
from deployment.cli.options import AS_SET, Config, Json, LedgerUrl
from deployment.cli.output import print_json
from deployment.cli.tables import print_table
from deployment.schemas.explanations import ExplanationStep
from rewards.ledger.ledger import Ledger


def explain(
    period: Annotated[str, typer.Argument(metavar="PERIOD", help="Name of a closed period, such as 2026-11.")],
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="Whose payout; or commons.")],
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Show why a client, or the commons, is paid what it is: each line from credit to payout.

    A line with a formula is computed from lines above it, in integers; `÷` rounds down.
    """
    explanation = explain_payout(Ledger(ledger), None, period, client)
    if as_json:
        print_json(explanation.model_dump(mode="json"))
        return
    rows = [
        (step.name, readable_amount(step, explanation.currency, explanation.minor_digits), _reason(step))
        for step in explanation.steps
    ]
    title = f"payout of {client} in period {period} (number {explanation.ordinal}, {explanation.state})"
    print_table(title, ("line", "amount", "what it is"), rows, texts=(0, 2))
    if explanation.reversed:
        reversals = [(each.response_id, each.period, credit(each.credit)) for each in explanation.reversed]
        print_table("reversed responses", ("response", "counted in", "credit"), reversals, texts=(0, 1))


def _reason(step: ExplanationStep) -> str:
    formula = readable_formula(step)
    said = f"{step.label} = {formula}" if formula else step.label
    return f"{said} ({step.note})" if step.note else said
