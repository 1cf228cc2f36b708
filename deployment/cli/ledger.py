"""`protoken ledger balances | entries`: what was booked."""

from typing import Annotated

import typer

from deployment.cli.options import Json, LedgerUrl, date
from deployment.cli.output import credit, print_json, print_table
from deployment.settings import ledger_url
from rewards import MICRO_CREDITS_PER_TOKEN, Ledger

__all__ = ["app"]

app = typer.Typer(help="Read the credit ledger.", no_args_is_help=True)


@app.command()
def balances(ledger: LedgerUrl = None, as_json: Json = False) -> None:
    """Credit of every account since the beginning; the sum is the generated tokens × 1 000 000."""
    book = Ledger(ledger_url(ledger))
    up_to = book.last_sequence()
    accounts, tokens = book.balances(up_to=up_to), book.tokens(up_to=up_to)
    if as_json:
        print_json({"balances": accounts, "tokens": tokens, "sum": sum(accounts.values()), "last_sequence": up_to})
        return
    rows = [(account, credit(amount)) for account, amount in accounts.items()]
    title = f"{tokens} tokens × {MICRO_CREDITS_PER_TOKEN} micro-credits"
    print_table(title, ("account", "credit"), rows, footer=("sum", credit(sum(accounts.values()))))


@app.command()
def entries(
    ledger: LedgerUrl = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Show receipts behind this sequence number.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many receipts at most.")] = 50,
    as_json: Json = False,
) -> None:
    """Receipts and their entries, in the order in which they were booked."""
    receipts = Ledger(ledger_url(ledger)).receipts_after(after, limit)
    if as_json:
        print_json(receipts)
        return
    rows = [
        (str(receipt["sequence"]), receipt["response_id"], date(receipt["booked_at_us"]), account, credit(amount))
        for receipt in receipts
        for account, amount in receipt["amounts"].items()
    ]
    print_table("entries", ("sequence", "response", "booked", "account", "credit"), rows)
