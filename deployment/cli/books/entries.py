"""`protoken ledger balances | entries | reverse`: what was booked; the log over it is the business of `log`."""

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from deployment.cli.number_format import credit
from deployment.cli.options import ACTOR, AS_SET, Config, Json, LedgerUrl, date
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table
from deployment.schemas.receipts import Receipt
from rewards.credit import MICRO_CREDITS_PER_TOKEN
from rewards.ledger.ledger import Ledger


def balances(ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """Credit of every account since the beginning; the sum is the generated tokens × 1 000 000."""
    with closing(Ledger(ledger)) as book:
        up_to = book.last_sequence()
        accounts, tokens = book.balances(up_to=up_to), book.tokens(up_to=up_to)
    if as_json:
        told = {"balances": {account: str(amount) for account, amount in accounts.items()}, "tokens": str(tokens)}
        print_json({**told, "sum": str(sum(accounts.values())), "last_sequence": up_to})
        return
    rows = [(account, credit(amount)) for account, amount in accounts.items()]
    title = f"{tokens} tokens × {MICRO_CREDITS_PER_TOKEN} micro-credits"
    print_table(title, ("account", "credit"), rows, footer=("sum", credit(sum(accounts.values()))))


def entries(
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Show receipts behind this sequence number.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many receipts at most.")] = 50,
    as_json: Json = False,
) -> None:
    """Receipts and their entries, in the order in which they were booked."""
    with closing(Ledger(ledger)) as book:
        receipts = book.receipts_after(after, limit)
    if as_json:
        print_json([Receipt.model_validate(receipt).model_dump(mode="json") for receipt in receipts])
        return
    rows = [
        (str(receipt.sequence), receipt.response_id, date(receipt.booked_at_us), account, credit(amount))
        for receipt in receipts
        for account, amount in receipt.amounts.items()
    ]
    print_table("entries", ("sequence", "response", "booked", "account", "credit"), rows)


def reverse(
    response: Annotated[str, typer.Argument(help="Id of the response.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever reads the books.")],
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Take a response's credit back by counter-entries, once; what a settled period paid for it is clawed back."""
    with closing(Ledger(ledger)) as book:
        booked = book.reverse(response, reason, ACTOR)
    if as_json:
        print_json(asdict(booked))
    else:
        known = ", as it was before" if booked.replayed else ""
        say(f"{response} is reversed by receipt {booked.sequence}, {booked.response_id}{known}", soft_wrap=True)
