"""Statements as they are listed, and what is given out as a file."""

import json
from pathlib import Path

import pytest

from deployment.books.books import Books
from deployment.books.statements import FORMATS, issue_statement, statement_file, written_statements
from deployment.errors import NotFoundError, UnavailableError
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.world import make_world


@pytest.fixture
def books(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> Books:
    """One final period, with statements of the clinic and the bank."""
    return make_world(ledger, keys, tmp_path).books


def test_a_page_tells_its_place_only_where_there_are_more(books: Books) -> None:
    """Pages of one, each after the place of the one before, are together the page of all."""
    whole = written_statements(books, None, limit=10)
    first = written_statements(books, None, limit=1)

    assert whole.place is None
    assert ["clinic", "bank"] == [entry.client for entry in whole.rows]
    assert first.place is not None
    (place,) = first.place
    rest = written_statements(books, None, after=place, limit=1)
    assert rest.place is None
    assert [*whole.rows] == [*first.rows, *rest.rows]


def test_a_member_s_statements_are_its_own_whatever_it_asks_for(books: Books) -> None:
    """Its own without a client or by its own id; of another client none, as of one that is not there."""
    assert ["bank"] == [entry.client for entry in written_statements(books, "bank", limit=10).rows]
    assert ["bank"] == [entry.client for entry in written_statements(books, "bank", client="bank", limit=10).rows]
    assert [] == written_statements(books, "bank", client="clinic", limit=10).rows
    with pytest.raises(NotFoundError):
        issue_statement(books, "bank", "first", "clinic")


def test_without_a_key_a_statement_is_refused_only_to_whom_it_is_for(books: Books) -> None:
    """That this service cannot sign is told after it is clear that there is something to sign."""
    without = Books(books.ledger, books.keys)

    with pytest.raises(NotFoundError):
        issue_statement(without, None, "first", "nobody")
    with pytest.raises(UnavailableError, match="no signing key"):
        issue_statement(without, None, "first", "bank")


@pytest.mark.parametrize("form", FORMATS)
def test_a_statement_is_given_out_under_its_own_name(books: Books, form: str) -> None:
    """In each format, never kept by who passes it on; a page to print is opened, and may load nothing."""
    document = issue_statement(books, None, "first", "bank")
    file = statement_file(document, form)

    assert f"statement-first-bank.{form}" in file.headers["Content-Disposition"]
    assert "no-store" == file.headers["Cache-Control"]
    assert (form == "html") == file.headers["Content-Disposition"].startswith("inline")
    assert (form == "html") == ("Content-Security-Policy" in file.headers)
    assert {"json": "application/json", "csv": "text/csv", "html": "text/html"}[form] == file.media_type
    if form == "json":
        assert document == json.loads(file.content)
