"""`protoken hold place | release | list`: what is not to be paid for the time being."""

from dataclasses import asdict
from typing import Annotated

import typer

from deployment.cli.options import ACTOR, AS_SET, Config, Json, LedgerUrl, date
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table
from rewards.ledger.ledger import Ledger
from rewards.periods import holds

app = typer.Typer(help="Hold back a client's payouts or a response's credit.", no_args_is_help=True)
_Reason = Annotated[str, typer.Option("--reason", help="Why, for whoever reads the books.")]


@app.command()
def place(
    kind: Annotated[str, typer.Argument(help="client or response.")],
    target: Annotated[str, typer.Argument(help="Id of the client or of the response.")],
    reason: _Reason,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
) -> None:
    """Place a hold; a draft period that it touches becomes disputed."""
    typer.echo(holds.place(Ledger(ledger), kind, target, reason, ACTOR))


@app.command()
def release(
    hold_id: Annotated[str, typer.Argument(metavar="HOLD", help="As `place` printed it.")],
    reason: _Reason,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
) -> None:
    """End a hold; what was held counts in the period that is settled next."""
    holds.release(Ledger(ledger), hold_id, reason, ACTOR)
    say(f"released {hold_id}", soft_wrap=True)


@app.command("list")
def list_(ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """List every hold, released ones too."""
    placed = holds.all_holds(Ledger(ledger))
    if as_json:
        print_json([asdict(hold) for hold in placed])
        return
    rows = [
        (hold.hold_id, hold.kind, hold.target, date(hold.placed_at_us), date(hold.released_at_us), hold.reason)
        for hold in placed
    ]
    print_table("holds", ("hold", "kind", "target", "placed", "released", "reason"), rows)
