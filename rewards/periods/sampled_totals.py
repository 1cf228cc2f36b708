"""Sampled responses added up by stratum: what is pending by sums in the database, what was measured one by one.

One by one, because the error of a sample needs squares that no 64 bits hold; they are the fraction that was measured.
Knows no period and no policy; what a stratum is, `rewards.settlement.pending` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlmodel import col

from rewards.credit import MICRO_CREDITS_PER_TOKEN, PENDING, SAMPLING
from rewards.settlement.pending import Stratum, StratumKey, add_strata
from rewards.store.queries import batches
from rewards.store.sums import exact_sum
from rewards.store.tables import EntryRow, ReceiptRow

_ROWS = 1000  # fetched at a time


class sampled_fraction(GenericFunction[str]):  # noqa: N801 - it is written as `func.sum` is
    """The credit fraction that a receipt's measurement names; NULL where it names none."""

    inherit_cache = True


@compiles(sampled_fraction)
def _on_postgresql(element: sampled_fraction, compiler: SQLCompiler, **options: Any) -> str:
    return f"(CAST({compiler.process(element.clauses, **options)} AS jsonb) #>> '{{{SAMPLING},fraction}}')"


@compiles(sampled_fraction, "sqlite")
def _on_sqlite(element: sampled_fraction, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_extract({compiler.process(element.clauses, **options)}, '$.{SAMPLING}.fraction')"


def has_pending(connection: Connection, after: int, up_to: int, sequences: Iterable[int] = ()) -> bool:
    """Whether any receipt of a window, or of these numbers, books to the pending account; quick where none does."""
    entry_of = col(EntryRow.receipt_sequence)
    conditions: list[ColumnElement[bool]] = [and_(entry_of > after, entry_of <= up_to)]
    conditions += [entry_of.in_(some) for some in batches(sorted(sequences))]
    pending = select(entry_of).where(col(EntryRow.account) == PENDING)
    return any(connection.execute(pending.where(condition).limit(1)).first() for condition in conditions)


def window(connection: Connection, after: int, up_to: int, *, by_application: bool) -> dict[StratumKey, Stratum]:
    """The strata of the receipts with after < sequence ≤ up_to; memory for strata and accounts, not for receipts."""
    return _strata(connection, col(ReceiptRow.sequence).between(after + 1, up_to), by_application=by_application)


def receipts(connection: Connection, sequences: Iterable[int], *, by_application: bool) -> dict[StratumKey, Stratum]:
    """The strata of the receipts of these sequence numbers."""
    total: dict[StratumKey, Stratum] = {}
    for some in batches(sorted(sequences)):
        condition = col(ReceiptRow.sequence).in_(some)
        add_strata(total, _strata(connection, condition, by_application=by_application))
    return total


def _strata(
    connection: Connection, condition: ColumnElement[bool], *, by_application: bool
) -> dict[StratumKey, Stratum]:
    """A response is of the stratum that it says; a reversal is of that of its response, and counts against it."""
    original = aliased(ReceiptRow)
    with_original = col(ReceiptRow.reverses) == col(original.response_id)
    total: dict[StratumKey, Stratum] = {}
    for says, receipts_ in (
        (ReceiptRow, select().select_from(ReceiptRow).where(col(ReceiptRow.reverses).is_(None))),
        (original, select().join_from(ReceiptRow, original, with_original)),
    ):
        application = col(says.application) if by_application else literal("")
        fraction = sampled_fraction(col(says.measurement))
        key = (col(says.consortium), col(says.model_sha256), fraction, application)
        entries = receipts_.join(EntryRow, col(EntryRow.receipt_sequence) == col(ReceiptRow.sequence))
        entries = entries.where(condition, fraction.is_not(None), col(EntryRow.amount) != 0)
        _add_pending(connection, entries, key, total)
        _add_measured(connection, entries, key, total)
    return total


def _add_pending(
    connection: Connection, entries: Select[Any], key: Sequence[Any], total: dict[StratumKey, Stratum]
) -> None:
    amount, sign = col(EntryRow.amount), case((col(ReceiptRow.tokens) > 0, 1), else_=-1)
    query = entries.add_columns(*key, func.sum(sign), exact_sum(amount)).where(col(EntryRow.account) == PENDING)
    for *values, responses, credit in connection.execute(query.group_by(*key)):
        stratum = total.setdefault(StratumKey(*values), Stratum())
        stratum.pending += int(responses)
        stratum.pending_credit += int(credit)


def _add_measured(
    connection: Connection, entries: Select[Any], key: Sequence[Any], total: dict[StratumKey, Stratum]
) -> None:
    columns = (col(ReceiptRow.sequence), col(ReceiptRow.tokens), *key, col(EntryRow.account), col(EntryRow.amount))
    query = entries.add_columns(*columns).where(col(EntryRow.account) != PENDING).order_by(col(ReceiptRow.sequence))
    rows = connection.execute(query, execution_options={"yield_per": _ROWS})
    for (_, tokens, *values), own in groupby(rows, key=lambda row: row[:-2]):
        stratum = total.setdefault(StratumKey(*values), Stratum())
        amounts = ((row[-2], abs(row[-1])) for row in own)
        stratum.measure(abs(tokens) * MICRO_CREDITS_PER_TOKEN, amounts, 1 if tokens > 0 else -1)
