"""`protoken period list | preview | close | dispute | finalise | pay`: credit of a period into exact payouts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.options import ACTOR, Json, LedgerUrl, date
from deployment.cli.output import credit, print_json, print_table, say
from deployment.schemas.periods import settlement_answer
from deployment.settings import ledger_url
from rewards import money, periods
from rewards.files.strict_json import JsonObject
from rewards.ledger.ledger import Ledger
from rewards.periods.errors import PeriodClosedError
from rewards.settlement.document import Settlement
from rewards.settlement.policy_file import load_policy

app = typer.Typer(help="Preview and close settlement periods.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(metavar="PERIOD", help="Name of the period, such as 2026-11.")]
_PolicyFile = Annotated[Path, typer.Option("--policy", help="Settlement policy (YAML), see configs/policy.yaml.")]
_Until = Annotated[
    datetime | None,
    typer.Option("--until", help="Settle what was booked before this moment (UTC); else everything booked by now."),
]


@app.command("list")
def list_(ledger: LedgerUrl = None, as_json: Json = False) -> None:
    """List the closed periods."""
    closed = periods.all(Ledger(ledger_url(ledger)))
    if as_json:
        states = [{"state": period.state, "closed_at_us": period.closed_at_us} for period in closed]
        print_json([_document(period.settlement) | state for period, state in zip(closed, states, strict=True)])
        return
    rows = [
        (
            period.name,
            period.state,
            f"{period.window[0] + 1}–{period.window[1]}",
            date(period.closed_at_us),
            _money(period.settlement, period.settlement.pool),
        )
        for period in closed
    ]
    print_table("closed periods", ("period", "state", "receipts", "closed", "pool"), rows)


@app.command()
def preview(
    period: _Name, policy: _PolicyFile, until: _Until = None, ledger: LedgerUrl = None, as_json: Json = False
) -> None:
    """Show what closing the period now would pay; changes nothing."""
    draft = periods.preview(Ledger(ledger_url(ledger)), period, load_policy(policy), _microseconds(until))
    show_settlement(draft.settlement, "preview", as_json=as_json)
    changed = {account: units for account, units in draft.difference.items() if units}
    if draft.compared_with and not as_json:
        rows = [(account, _money(draft.settlement, units)) for account, units in changed.items()]
        print_table(f"payouts against the {draft.compared_with}", ("account", "difference"), rows)


@app.command()
def close(
    period: _Name, policy: _PolicyFile, until: _Until = None, ledger: LedgerUrl = None, as_json: Json = False
) -> None:
    """Close the period, once and for all.

    A period that is closed already stays as it is: its settlement is shown again, and the exit code is 1.
    """
    try:
        settlement = periods.close(Ledger(ledger_url(ledger)), period, load_policy(policy), ACTOR, _microseconds(until))
    except PeriodClosedError as error:
        show_settlement(error.settlement, "closed before", as_json=as_json)
        raise
    show_settlement(settlement, "closed", as_json=as_json)


@app.command()
def dispute(
    period: _Name, reason: Annotated[str, typer.Option("--reason", help="Why.")], ledger: LedgerUrl = None
) -> None:
    """Mark a draft as disputed."""
    periods.dispute(Ledger(ledger_url(ledger)), period, reason, ACTOR)
    say(f"{period} is disputed", soft_wrap=True)


@app.command()
def finalise(period: _Name, ledger: LedgerUrl = None, as_json: Json = False) -> None:
    """Make a draft final after its dispute days, with the holds of this moment."""
    settlement = periods.finalise(Ledger(ledger_url(ledger)), period, ACTOR)
    show_settlement(settlement, "final", as_json=as_json)


@app.command()
def pay(
    period: _Name,
    reference: Annotated[
        str, typer.Option("--reference", help="By which the payment is found, as in a bank's number.")
    ],
    ledger: LedgerUrl = None,
) -> None:
    """Note that a final period was paid."""
    periods.pay(Ledger(ledger_url(ledger)), period, reference, ACTOR)
    say(f"{period} is paid", soft_wrap=True)


def show_settlement(settlement: Settlement, state: str, *, as_json: bool) -> None:
    """Print a settlement as a table that sums to the pool, or as its document with its hash."""
    if as_json:
        print_json(_document(settlement))
        return
    rows = [
        (line.account, credit(line.credit), f"{float(line.share):.4%}", _money(settlement, line.payout))
        for line in settlement.lines
    ]
    footer = (
        "sum",
        credit(sum(line.credit for line in settlement.lines)),
        f"{float(sum(line.share for line in settlement.lines)):.4%}",
        _money(settlement, sum(line.payout for line in settlement.lines)),
    )
    after, up_to = settlement.window
    title = f"settlement {settlement.period} ({state}): receipts {after + 1}–{up_to}, sha256 {settlement.sha256[:12]}"
    print_table(title, ("account", "credit", "share", "payout"), rows, footer=footer)
    if settlement.unclaimed:
        typer.echo("no client had credit that the policy pays: the commons holds the whole pool")
    _show_sampling(settlement)
    _show_standing(settlement)


def _show_sampling(settlement: Settlement) -> None:
    """How what was not measured was settled; nothing where everything was measured."""
    sampling = settlement.sampling
    if sampling is None:
        return
    responses, measured = sampling.responses
    rows = [
        (account, credit(sampling.settled.get(account, 0)), f"{100 * float(error):.4f}")
        for account, error in sampling.standard_errors.items()
    ]
    title = f"settled by {measured} measured responses of {responses}: {credit(sampling.pending_credit)} pending"
    print_table(title, ("account", "of what was pending", "standard error, points of all credit"), rows)
    if sampling.untold_credit:
        typer.echo(f"of {credit(sampling.untold_credit)} no error can be told: fewer than two responses were measured")


def _show_standing(settlement: Settlement) -> None:
    """What stands in other currencies, a table for each; nothing where nothing does."""
    for currency, purse in settlement.standing.items():
        rows = [
            (
                account,
                *(
                    money.write_readable(amount, *currency)
                    for amount in (
                        balance.carry,
                        balance.held,
                        sum(amount for _, amount in balance.holdbacks),
                        balance.clawback,
                    )
                ),
            )
            for account, balance in purse.open_balances.items()
        ]
        title = f"standing in {currency.code} until a period is settled in it"
        print_table(title, ("account", "carried", "held", "kept back", "to take back"), rows)


def _document(settlement: Settlement) -> JsonObject:
    """As the operator API tells it."""
    return settlement_answer(settlement.to_document() | {"sha256": settlement.sha256}).model_dump(mode="json")


def _money(settlement: Settlement, minor_units: int) -> str:
    return money.write_readable(minor_units, settlement.policy.currency, settlement.policy.minor_digits)


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(aware.timestamp() * 1_000_000)
