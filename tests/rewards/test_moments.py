"""Months by their names."""

from datetime import UTC, datetime

import pytest

from rewards.moments import moment_of, month_end_us


@pytest.mark.parametrize(
    ("name", "end"),
    [("2026-11", (2026, 12)), ("2026-12", (2027, 1)), ("2024-02", (2024, 3)), ("2026-01", (2026, 2))],
)
def test_a_month_ends_where_the_next_begins(name: str, end: tuple[int, int]) -> None:
    """Short and long ones, and the last of a year."""
    assert moment_of(datetime(*end, 1, tzinfo=UTC)) == month_end_us(name)


@pytest.mark.parametrize("name", ["autumn", "2026-13", "2026-Q4", "2026", "9999-12", ""])
def test_what_is_no_month_has_no_end(name: str) -> None:
    """Periods may be called anything, and calendars end."""
    assert month_end_us(name) is None
