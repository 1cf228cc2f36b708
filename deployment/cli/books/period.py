"""`protoken period list | preview | close | dispute | finalise | pay`: credit into exact payouts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from deployment.books.settlement_table import table_of
from deployment.cli.books.payouts import payouts
from deployment.cli.number_format import credit
from deployment.cli.options import ACTOR, AS_SET, Config, Json, LedgerUrl, date, setting_option
from deployment.cli.output import print_json, say
from deployment.cli.tables import print_table
from deployment.schemas.periods import settlement_answer
from rewards import money, periods
from rewards.files.strict_json import JsonObject
from rewards.ledger.ledger import Ledger
from rewards.moments import month_end_us, text_of
from rewards.periods.errors import PeriodClosedError
from rewards.settlement.document import Settlement
from rewards.settlement.policy_file import load_policy
from rewards.store.database import now_us

app = typer.Typer(help="Preview and close settlement periods.", no_args_is_help=True)
_Name = Annotated[str, typer.Argument(metavar="PERIOD", help="Name of the period, such as 2026-11.")]
_PolicyFile = Annotated[
    Path, setting_option("policy", "--policy", "Settlement policy (YAML), see configs/policy.yaml", is_needed=True)
]
_At = Annotated[
    datetime | None,
    typer.Option("--at", help="Rehearse it for this moment to come (UTC), as if nothing more were booked until then."),
]
_Until = Annotated[
    datetime | None,
    typer.Option("--until", help="Settle what was booked before this moment (UTC); else everything booked by now."),
]


@app.command("list")
def list_(ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """List the closed periods."""
    closed = periods.all(Ledger(ledger))
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
    period: _Name,
    policy: _PolicyFile = AS_SET,
    until: _Until = None,
    at: _At = None,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what closing the period now would pay, or what finalising would, of a draft; changes nothing.

    With --at it is rehearsed for a moment to come, as if nothing more were booked until then: also from when on it
    could be final, and when what is kept back returns. A draft before it, due by then, is taken as finalised.
    """
    book, at_us = Ledger(ledger), _microseconds(at)
    draft = periods.preview(book, period, load_policy(policy), _microseconds(until), at_us=at_us)
    if as_json:
        times: JsonObject = {"at_us": at_us, "final_from_us": draft.final_from_us}
        rehearsal = {} if at_us is None else {**times, "taken_as_final": draft.taken_as_final}
        print_json(_document(draft.settlement) | rehearsal)
        return
    show_settlement(draft.settlement, "preview" if at_us is None else f"rehearsed for {text_of(at_us)}", as_json=False)
    is_closed = periods.get(book, period) is not None
    if not is_closed:  # a draft has its end
        _show_rest_of_month(period, _microseconds(until) or at_us)
    if at_us is not None:
        _show_times(draft, at_us, is_closed=is_closed)
    changed = {account: units for account, units in draft.difference.items() if units}
    if draft.compared_with:
        rows = [(account, _money(draft.settlement, units)) for account, units in changed.items()]
        print_table(f"payouts against the {draft.compared_with}", ("account", "difference"), rows)


@app.command()
def close(
    period: _Name,
    policy: _PolicyFile = AS_SET,
    until: _Until = None,
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Close the period, once and for all.

    A period that is closed already stays as it is: its settlement is shown again, and the exit code is 1.
    """
    try:
        settlement = periods.close(Ledger(ledger), period, load_policy(policy), ACTOR, _microseconds(until))
    except PeriodClosedError as error:
        show_settlement(error.settlement, "closed before", as_json=as_json)
        raise
    show_settlement(settlement, "closed", as_json=as_json)
    if not as_json:
        _show_rest_of_month(period, _microseconds(until))
        if days := settlement.policy.dispute_days:
            say(f"it is a draft, which may be disputed for {days} days; then `protoken period finalise {period}`")


@app.command()
def dispute(
    period: _Name,
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
) -> None:
    """Mark a draft as disputed."""
    periods.dispute(Ledger(ledger), period, reason, ACTOR)
    say(f"{period} is disputed", soft_wrap=True)


@app.command()
def finalise(period: _Name, ledger: LedgerUrl = AS_SET, _config: Config = None, as_json: Json = False) -> None:
    """Make a draft final after its dispute days, with the holds of this moment; one that is final stays as it is."""
    book = Ledger(ledger)
    closed = periods.get(book, period)
    if closed is not None and closed.final is not None:
        show_settlement(closed.final, "final already", as_json=as_json)
        return
    show_settlement(periods.finalise(book, period, ACTOR), "final", as_json=as_json)


app.command()(payouts)


@app.command()
def pay(
    period: _Name,
    reference: Annotated[
        str, typer.Option("--reference", help="By which the payment is found, as in a bank's number.")
    ],
    ledger: LedgerUrl = AS_SET,
    _config: Config = None,
) -> None:
    """Note that a final period was paid."""
    periods.pay(Ledger(ledger), period, reference, ACTOR)
    say(f"{period} is paid", soft_wrap=True)


def show_settlement(settlement: Settlement, state: str, *, as_json: bool) -> None:
    """Print a settlement as a table that sums to the pool, or as its document with its hash."""
    if as_json:
        print_json(_document(settlement))
        return
    policy, (after, up_to) = settlement.policy, settlement.window
    typer.echo(
        f"settlement {settlement.period} ({state}): receipts {after + 1}–{up_to}, sha256 {settlement.sha256[:12]}"
    )
    _show_lines(settlement)
    pool, fee = (_money(settlement, amount) for amount in (settlement.pool, settlement.fee))
    typer.echo(f"gross and fee sum to the pool of {pool}; the fee of the service is {fee}")
    if any(line.holdback for line in settlement.lines):
        returns = settlement.ordinal + policy.holdback_release_after
        typer.echo(f"this is period number {settlement.ordinal}; what is kept back of it returns in number {returns}")
    if settlement.unclaimed:
        typer.echo("no client had credit that the policy pays: the commons holds the whole pool")
    _show_sampling(settlement)
    _show_standing(settlement)


def _show_lines(settlement: Settlement) -> None:
    """Every line of money that anybody has, as the console shows it; with the fee, the gross sums to the pool."""
    table = table_of(settlement_answer(settlement.to_document() | {"sha256": settlement.sha256}).lines, {})
    policy, fee = settlement.policy, settlement.fee

    def money_cells(amounts: Mapping[str, int]) -> list[str]:
        digits = policy.minor_digits
        return [
            money.write_readable(amounts[column.name], "", digits) if column.name in amounts else ""
            for column in table.columns
        ]

    rows = [
        (
            row.line.account,
            credit(row.line.credit),
            row.part,
            *money_cells({column.name: row.money(column) for column in table.columns}),
        )
        for row in table.rows
    ]
    if fee:
        rows.append(("fee of the service", "", "", *money_cells({"gross": fee})))
    sums = {**table.sums, "gross": table.sums["gross"] + fee}
    footer = ("sum", credit(table.credit), "", *money_cells(sums))
    titles = [f"{column.sign} {column.label.lower()}".strip() for column in table.columns]
    print_table(f"in {policy.currency}", ("account", "credit", "part", *titles), rows, footer=footer)


def _show_times(draft: periods.Preview, at_us: int, *, is_closed: bool) -> None:
    """What a rehearsal is about: what it takes as done, the end of the dispute days, when what is kept back returns."""
    settlement = draft.settlement
    if draft.taken_as_final is not None:
        say(f"{draft.taken_as_final} is taken as finalised at {text_of(at_us)}, with the holds of now", soft_wrap=True)
    if draft.final_from_us > at_us:
        since = "it" if is_closed else f"closed at {text_of(at_us)}, it is a draft and"
        typer.echo(f"{since} may be disputed until {text_of(draft.final_from_us)}, and finalised from then on")
    else:
        typer.echo("it can be finalised then" if is_closed else f"closed at {text_of(at_us)}, it is final at once")
    rows = [
        (line.account, str(release), _money(settlement, amount))
        for line in settlement.lines
        for release, amount in line.holdbacks
    ]
    if rows:
        print_table("kept back", ("account", "returns in period number", "amount"), rows)


def _show_rest_of_month(period: str, until_us: int | None) -> None:
    """That a month goes on, where a period is named by one: a name is a label, and a close cannot be taken back."""
    end_us, until_us = month_end_us(period), until_us or now_us()
    if end_us is not None and until_us < end_us:
        typer.echo(
            f"the period ends at {text_of(until_us)}, and the month goes on until {text_of(end_us)}: what is generated "
            "in between counts in the next period"
        )


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
