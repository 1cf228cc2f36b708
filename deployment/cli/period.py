"""`protoken period list | preview | close`: credit of a period into payouts that sum to the pool."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from deployment.cli.options import Json, LedgerUrl, date
from deployment.cli.output import credit, money, print_json, print_table
from deployment.settings import ledger_url
from rewards import Ledger, PeriodClosedError, Settlement, load_policy, periods

__all__ = ["app", "show_settlement"]

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
    closed = periods.closed(Ledger(ledger_url(ledger)))
    if as_json:
        print_json([_document(period.settlement) | {"closed_at_us": period.closed_at_us} for period in closed])
        return
    rows = [
        (
            period.name,
            f"{period.first_sequence}–{period.last_sequence}",
            date(period.closed_at_us),
            _money(period.settlement, period.settlement.policy.pool),
        )
        for period in closed
    ]
    print_table("closed periods", ("period", "receipts", "closed", "pool"), rows)


@app.command()
def preview(
    period: _Name, policy: _PolicyFile, until: _Until = None, ledger: LedgerUrl = None, as_json: Json = False
) -> None:
    """Show what closing the period now would pay; changes nothing."""
    settlement = periods.preview(Ledger(ledger_url(ledger)), period, load_policy(policy), _microseconds(until))
    show_settlement(settlement, "preview", as_json=as_json)


@app.command()
def close(
    period: _Name, policy: _PolicyFile, until: _Until = None, ledger: LedgerUrl = None, as_json: Json = False
) -> None:
    """Close the period, once and for all.

    A period that is closed already stays as it is: its settlement is shown again, and the exit code is 1.
    """
    try:
        settlement = periods.close(Ledger(ledger_url(ledger)), period, load_policy(policy), _microseconds(until))
    except PeriodClosedError as error:
        show_settlement(error.settlement, "closed before", as_json=as_json)
        raise
    show_settlement(settlement, "closed", as_json=as_json)


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


def _document(settlement: Settlement) -> dict[str, Any]:
    return settlement.to_document() | {"sha256": settlement.sha256}


def _money(settlement: Settlement, minor_units: int) -> str:
    return money(minor_units, settlement.policy.minor_digits, settlement.policy.currency)


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(aware.timestamp() * 1_000_000)
