"""Calibrations in the books: events that the log covers, of models that the ledger knows, the same never twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.audit.replay import audit
from rewards.errors import CalibrationError, PublicationError
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.store import calibrations
from rewards.store.publications import publish, withdraw
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.receipts import MEMBERS, make_receipt

SHA, NEXT, MANIFEST = "1" * 64, "2" * 64, "3" * 64


@pytest.fixture
def books(url):
    """A ledger of one consortium, nothing published and nothing credited."""
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    yield ledger
    ledger.close()


def _book(ledger: Ledger, model: str = SHA, identity: str = "one", consortium: str = "demo") -> tuple[int, bool]:
    with ledger.database.write() as connection:
        document = {"model_sha256": model, "figures": {"distance": 0.028, "none": None}, "found": identity}
        return calibrations.book(connection, consortium, document, identity, "tester")


def _publish(ledger: Ledger, model: str = SHA) -> None:
    with ledger.database.write() as connection:
        publish(
            connection, "demo", bundle="/b", model_sha256=model, manifest_sha256=MANIFEST, round_number=1, actor="me"
        )


def _require(ledger: Ledger, model: str = SHA, consortium: str = "demo", manifest: str = MANIFEST) -> None:
    with ledger.database.read() as connection:
        calibrations.require_known_model(
            connection, consortium, bundle="/mine", model_sha256=model, manifest_sha256=manifest
        )


def test_the_same_is_written_once(books):
    """The second time it is the first one's number; what finds something else is another event."""
    first, again, other = _book(books), _book(books), _book(books, identity="two")

    assert (first[0], False) == again
    assert (True, True) == (first[1], other[1])
    assert other[0] == first[0] + 1


def test_the_last_of_each_model_counts(books):
    """In the order in which they were written; those of another consortium are its own."""
    numbers = [_book(books, model, f"{place}")[0] for place, model in enumerate((SHA, NEXT, SHA))]
    _book(books, SHA, "other", "elsewhere")
    with books.database.read() as connection:
        told = calibrations.latest(connection, "demo")
        none = calibrations.latest(connection, "nobody")

    assert [(numbers[1], NEXT), (numbers[2], SHA)] == [(each.sequence, each.document["model_sha256"]) for each in told]
    assert [] == none


def test_the_audit_agrees(books, url):
    """With such an event, sealed, the books are in order, and its leaf is in the log."""
    _book(books)
    seal(books, KEY, ORIGIN)
    report = audit(url, keys=[KEY.public])

    assert report.is_ok, report


def test_a_published_model_is_known(books):
    """Also one that was taken back; not one that was never published."""
    _publish(books)
    _publish(books, NEXT)
    with books.database.write() as connection:
        withdraw(connection, "demo", "me")

    _require(books)
    _require(books, NEXT)
    with pytest.raises(CalibrationError, match="neither published for consortium 'demo' nor credited"):
        _require(books, "4" * 64)


def test_a_credited_model_is_known(books):
    """By its receipts, where nothing was published."""
    with pytest.raises(CalibrationError, match="neither published"):
        _require(books, "a" * 64)
    books.append(make_receipt("r1"))

    _require(books, "a" * 64)


def test_what_the_ledger_does_not_know_is_refused(books):
    """A consortium that is not registered, and another bundle of a model that was published."""
    _publish(books)
    with pytest.raises(CalibrationError, match="/mine: the ledger knows no consortium 'other', only demo"):
        _require(books, consortium="other")
    with pytest.raises(PublicationError, match="not its manifest"):
        _require(books, manifest="5" * 64)


@given(st.lists(st.tuples(st.sampled_from((SHA, NEXT)), st.integers(0, 3)), max_size=8))
@settings(max_examples=15)
def test_books_are_a_list_without_repetitions(tmp_path_factory, told):
    """However often what is booked: the latest of a model is the last that was new of it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('calibrations')}/ledger.db"
    Ledger.prepare(url)
    ledger = Ledger(url)
    kept: dict[tuple[str, int], int] = {}
    for model, found in told:
        sequence, is_new = _book(ledger, model, f"{model}/{found}"[-40:])
        assert is_new == ((model, found) not in kept)
        assert sequence == kept.setdefault((model, found), sequence)
    with ledger.database.read() as connection:
        latest = {each.document["model_sha256"]: each.sequence for each in calibrations.latest(connection, "demo")}
    ledger.close()

    expected = {model: max(number for (of, _), number in kept.items() if of == model) for model, _ in kept}
    assert expected == latest
