"""Sums that do not overflow, whatever receipts hold: SQLite's own fail beyond 64 bits, and PostgreSQL's are exact.

Knows no table. On SQLite the upper and the lower 32 bits are added up apart and joined here.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Text, TypeDecorator
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

_BITS = 32


class _WholeNumber(TypeDecorator[int]):
    """What the database answers, as an integer; None where there was no row."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """An integer of two halves in text, or of a number."""
        del dialect
        if not isinstance(value, str):
            return None if value is None else int(value)
        upper, _, lower = value.partition(":")
        return (int(upper) << _BITS) + int(lower)


class exact_sum(GenericFunction[int]):  # noqa: N801 - it is written as `func.sum` is
    """The sum of a column of 64-bit integers."""

    type = _WholeNumber()
    inherit_cache = True


@compiles(exact_sum)
def _on_other_databases(element: exact_sum, compiler: SQLCompiler, **options: Any) -> str:
    return f"SUM({compiler.process(element.clauses, **options)})"


@compiles(exact_sum, "sqlite")
def _on_sqlite(element: exact_sum, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return f"(SUM({column} >> {_BITS}) || ':' || SUM({column} & {2**_BITS - 1}))"
