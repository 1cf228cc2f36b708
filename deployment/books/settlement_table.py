"""A settlement as a table: which lines of money it needs, a row for each account, and the row that sums to the pool.

Takes what the operator API tells and adds up nothing else. Knows no page and no rule of settling.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deployment.books import statement_page
from deployment.schemas.periods import Line, Settlement
from rewards.ledger.ledger import Ledger


@dataclass(frozen=True)
class Column:
    """One line of money of every account.

    Attributes:
        name: of the field in a settlement's lines.
        sign: "+" where it adds to what is paid, "−" where it takes away, "=" of what remains, "" of the gross.
        label: what it is called.
        note: what it is, in a sentence.
    """

    name: str
    sign: str
    label: str
    note: str


COLUMNS = (
    Column("gross", "", "Gross", "The part in whole minor units."),
    Column("carried_in", "+", "Carried in", "Carried over from the period before; below zero it is owed."),
    Column("released_holdback", "+", "Holdback released", "Holdbacks of earlier periods that fall due now."),
    Column("released_hold", "+", "Hold released", "What a hold had withheld until now."),
    Column("drawn_holdback", "+", "Holdback used", "Kept holdbacks that are used up against a debt."),
    Column("recovered", "+", "Recovered", "What clients gave back in this period, where the policy sends it."),
    Column("clawback", "−", "Taken back", "Taken back for responses that were reversed after they were settled."),
    Column("holdback", "−", "Holdback", "Part of the gross that is kept back for a later period."),
    Column("held", "−", "On hold", "What would be paid, but for a hold on the client."),
    Column("carried_out", "−", "Carried on", "Carried to the next period; below zero it is owed."),
    Column("payout", "=", "Payout", "What is paid."),
)
"""Every line of money, in the order in which they add up: what comes, what goes, and what remains."""
_ALWAYS = ("gross", "payout")


@dataclass(frozen=True)
class SettlementRow:
    """What one account gets.

    Attributes:
        line: as the operator API tells it.
        name: the client's display name; empty for the commons.
        difference: minor units that the payout is above what it is compared with; None without a comparison.
    """

    line: Line
    name: str
    difference: int | None

    @property
    def part(self) -> str:
        """The part of what is distributable as a percentage, to four digits."""
        return statement_page.percent(self.line.share)

    def money(self, column: Column) -> int:
        """The account's amount of a line of money, in minor units."""
        amount: int = getattr(self.line, column.name)
        return amount


@dataclass(frozen=True)
class Table:
    """A settlement to be shown.

    Attributes:
        columns: the lines of money of which any account has some, and those that every settlement has.
        rows: one for each account, in the settlement's order.
        sums: field of a column -> minor units of all rows; for the gross with the fee, which is the pool.
        has_late: whether any credit is of responses that came late.
        has_held: whether any credit is left out as it is held.
        carried: rows that carry a balance to the next period.
    """

    columns: tuple[Column, ...]
    rows: tuple[SettlementRow, ...]
    sums: Mapping[str, int] = field(default_factory=dict)
    credit: int = 0
    difference: int | None = None
    has_late: bool = False
    has_held: bool = False

    @property
    def carried_rows(self) -> tuple[SettlementRow, ...]:
        """The rows that carry money to a later period: an amount below the minimum, a debt, holdbacks, or holds."""
        return tuple(row for row in self.rows if row.line.carried_out or row.line.held_total or row.line.holdbacks)


def table_of(
    lines: Sequence[Line],
    names: Mapping[str, str],
    settlement: Settlement | None = None,
    difference: Mapping[str, int] | None = None,
) -> Table:
    """The table of a settlement, or of a member's own line of one.

    Args:
        lines: of the settlement.
        names: client -> display name.
        settlement: the whole of which these are all lines; None for a member's own line.
        difference: account -> minor units above what it is compared with; None without a comparison.
    """
    rows = [
        SettlementRow(
            line, names.get(line.account, ""), None if difference is None else difference.get(line.account, 0)
        )
        for line in lines
    ]
    sums = {column.name: sum(row.money(column) for row in rows) for column in COLUMNS}
    if settlement is not None:
        sums["gross"] += settlement.fee
    return Table(
        columns=tuple(_needed_columns(COLUMNS, rows)),
        rows=tuple(rows),
        sums=sums,
        credit=sum(int(line.credit) for line in lines),
        difference=None if difference is None else sum(difference.values()),
        has_late=any(int(line.late) for line in lines),
        has_held=any(int(line.held_credit) for line in lines),
    )


def _needed_columns(columns: Iterable[Column], rows: Iterable[SettlementRow]) -> Iterable[Column]:
    rows = list(rows)
    return (column for column in columns if column.name in _ALWAYS or any(row.money(column) for row in rows))


def names_in(ledger: Ledger) -> dict[str, str]:
    """Client -> display name as it was registered first; a page shows those alone that it has figures of."""
    names: dict[str, str] = {}
    for members in ledger.clients().values():
        for client, name in members.items():
            names.setdefault(client, name)
    return names
