"""Cursors: what is put in comes out, and nothing else is taken."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.errors import InvalidRequestError
from deployment.http.cursors import cursor_at, place_of

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


@given(sequence=st.integers(0, 2**63 - 1), account=TEXTS)
def test_a_cursor_gives_back_its_place(sequence: int, account: str) -> None:
    """Whatever a place consists of, its cursor is plain letters that stand for it."""
    cursor = cursor_at("entries", (sequence, account))

    assert cursor is not None
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert (sequence, account) == place_of("entries", cursor, int, str)


def test_no_place_has_no_cursor() -> None:
    """After the last page there is no cursor, and the first page is asked for without one."""
    assert cursor_at("entries", None) is None
    assert place_of("entries", None, int) is None


@pytest.mark.parametrize(
    "cursor",
    [
        "", "x", "é", "====", "W10", "AAAA", "[]",
        encoded(None),
        encoded([]),
        encoded({"entries": 1}),
        encoded(["entries"]),
        encoded(["entries", 1, 2]),
        encoded(["entries", "1"]),
        encoded(["entries", 1.0]),
        encoded(["entries", True]),
        encoded(["entries", -1]),
        encoded(["entries", 2**63]),
        encoded(["receipts", 1]),
        base64.urlsafe_b64encode(b"[" * 1400).decode(),
        base64.urlsafe_b64encode(b'["entries", ' + b"9" * 1400 + b"]").decode(),
    ],
)  # fmt: skip
def test_what_is_no_cursor_of_this_list_is_refused(cursor: str) -> None:
    """A malformed cursor, another route's, and one with numbers no ledger holds are each a bad request that says so."""
    with pytest.raises(InvalidRequestError) as refused:
        place_of("entries", cursor, int)

    assert ("cursor", "invalid_cursor") == (refused.value.param, refused.value.code)


@pytest.mark.parametrize("account", ["a\0b", "\ud800", 7, None])
def test_a_cursor_holds_texts_that_a_database_takes(account: object) -> None:
    """A text with a NUL or with half a character never reaches a query."""
    with pytest.raises(InvalidRequestError):
        place_of("entries", encoded(["entries", account]), str)
