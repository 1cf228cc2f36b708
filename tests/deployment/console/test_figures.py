"""What pages show is what the ledger says: after bookings, across a close, and, said so, while it is away."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment.api.filters import OpenPeriodFilters
from deployment.api.paging import Paging
from deployment.api.routes.clients import clients
from deployment.api.routes.shares import shares
from deployment.books.books import Books
from deployment.console.figures.snapshot import FRESH_S, Figures, FiguresSnapshot
from deployment.console.figures.view import view_of
from rewards import periods
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.views.contribution import Contribution
from tests.deployment.api.conftest import make_receipt
from tests.deployment.api.world import World, make_world
from tests.deployment.console.conftest import first_read
from tests.deployment.outages import Clock, away
from tests.waiting import PATIENCE_S

POLICY = Policy(currency="EUR", pool=1_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def figures(ledger: Ledger, clock: Clock) -> Figures:
    made = Figures(ledger, clock)
    first_read(made)
    return made


def read(figures: Figures, clock: Clock) -> FiguresSnapshot:
    """A new reading, however long it takes on a busy machine."""
    clock.now += FRESH_S
    figures.now()
    under_way = figures._under_way
    assert under_way is None or under_way.wait(PATIENCE_S)
    found = figures.now()
    assert found is not None
    return found


def require_equal(reading: FiguresSnapshot, books: Books) -> None:
    """The reading says, to everybody and to each client, what the operator API says."""
    for visible in (None, *reading.names):
        shown, told = view_of(reading, visible), shares(books, visible, OpenPeriodFilters())
        mine = {client.id: (client.open_credit, client.open_share) for client in shown.clients}
        if shown.commons is not None:
            mine["commons"] = (shown.commons.open_credit, shown.commons.open_share)
        assert {account.account: (account.credit, account.share) for account in told.accounts} == {
            account: figure for account, figure in mine.items() if figure[0] or account == visible
        }
        assert (told.tokens, told.period.previous, told.period.opened_at_us) == (
            shown.tokens,
            shown.previous,
            shown.opened_at_us,
        )
        registered = clients(books, visible, Paging()).data
        assert {client.id: (client.name, client.credit, client.consortia) for client in registered} == {
            client.id: (client.name, client.credit, list(client.consortia)) for client in shown.clients
        }


def test_figures_are_the_ledger_s_after_bookings_and_across_a_close(
    figures: Figures, clock: Clock, ledger: Ledger, keys: KeyRing
) -> None:
    """At each step of a ledger's life, with reversals within a period and of an earlier one."""
    books = Books(ledger, keys)
    require_equal(read(figures, clock), books)
    ledger.append_many([make_receipt(number) for number in range(1, 12)])
    require_equal(read(figures, clock), books)
    ledger.reverse("r4", "a test question", "tester")
    require_equal(read(figures, clock), books)
    periods.close(ledger, "2026-10", POLICY, "tester")
    require_equal(read(figures, clock), books)
    ledger.append_many([make_receipt(number) for number in range(12, 30)])
    ledger.reverse("r7", "of the closed period", "tester")
    ledger.reverse("r13", "of the open one", "tester")
    reading = read(figures, clock)

    require_equal(reading, books)
    shown = view_of(reading, None)
    assert (29, 3) == (shown.receipts, shown.reversals)
    assert "2026-10" == shown.previous


def test_a_reading_is_as_old_as_it_may_be_and_no_older(figures: Figures, clock: Clock, ledger: Ledger) -> None:
    """What was booked is shown when somebody asks and the last reading is old; before that the last one does."""
    before = read(figures, clock)
    ledger.append(make_receipt(1))
    clock.now += FRESH_S / 2

    assert before is figures.now()
    assert 1 == read(figures, clock).standing.sequence


def test_while_the_ledger_is_away_the_figures_of_then_are_shown(figures: Figures, clock: Clock, ledger: Ledger) -> None:
    """With since when; the moment stays the first one, and when the ledger is back, all is well."""
    ledger.append(make_receipt(1))
    before = read(figures, clock)
    with away(ledger.database, "receipts"):
        first = read(figures, clock)
        again = read(figures, clock)
    ledger.append(make_receipt(2))
    after = read(figures, clock)

    assert before.standing is first.standing is again.standing
    assert first.away_since_us is not None
    assert first.away_since_us == again.away_since_us
    assert before.away_since_us is None is after.away_since_us
    assert 2 == after.standing.sequence


def test_nobody_waits_for_a_reading_that_takes_long(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the first one has ended there are no figures, and nobody else begins a second one."""
    go_on, begun = threading.Event(), []
    catch_up = Contribution.catch_up

    def slow(contribution: Contribution) -> None:
        begun.append(1)
        go_on.wait(PATIENCE_S)
        catch_up(contribution)

    monkeypatch.setattr(Contribution, "catch_up", slow)
    figures = Figures(ledger)

    assert [None, None] == [figures.now(), figures.now()]
    assert {} == figures.names()
    go_on.set()
    while figures.now() is None:
        pass
    assert ["clinic", "bank", "port"] == list(figures.names())
    assert 1 == len(begun)


def test_a_failure_that_nobody_foresaw_is_no_end_of_all_readings(
    figures: Figures, clock: Clock, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, the figures are told to be old, and the next who asks has another reading begun."""
    read(figures, clock)
    ledger.append(make_receipt(1))
    with monkeypatch.context() as patch:
        patch.setattr(Contribution, "catch_up", lambda _self: 1 / 0)
        old = read(figures, clock)

    assert (0, True) == (old.standing.sequence, old.away_since_us is not None)
    assert "ZeroDivisionError" in caplog.text
    assert 1 == read(figures, clock).standing.sequence


def test_a_ledger_that_was_never_there_is_not_waited_for_as_if_it_were(ledger: Ledger, clock: Clock) -> None:
    """There are no figures, and since when is told; when it comes, there are."""
    with away(ledger.database, "receipts"):
        figures = Figures(ledger, clock)
        while figures.away_since_us is None:
            assert None is figures.now()

    clock.now += FRESH_S
    assert 0 == first_read(figures).standing.sequence
    assert None is figures.away_since_us


def test_what_came_of_a_reading_is_shown_when_it_has_ended(figures: Figures, clock: Clock, ledger: Ledger) -> None:
    """So that whoever sees it can have the next one begun; before, that one was the one just ended, and none came."""
    shown_at_its_end: list[int | None] = []

    def look() -> float:
        if threading.current_thread() is not threading.main_thread():
            shown_at_its_end.append(figures.away_since_us)
        return clock.now

    figures._clock = look
    with away(ledger.database, "receipts"):
        read(figures, clock)
    read(figures, clock)

    assert (2, None) == (len(shown_at_its_end), shown_at_its_end[0])
    assert shown_at_its_end[1] is not None


@pytest.fixture
def world(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> Iterator[World]:
    """Books with something of everything."""
    return make_world(ledger, keys, tmp_path)


def test_a_member_s_figures_hold_nothing_of_others(world: World) -> None:
    """Whatever is in them, however deep: no other client, no sum over everybody, nothing of the commons."""
    reading = first_read(Figures(world.books.ledger))
    whole, own = (repr(vars(view_of(reading, visible))) for visible in (None, "bank"))

    assert [] == [secret for secret in world.secrets if secret in own]
    assert ("'commons': None", 1) == (re.findall("'commons'[^,]*", own)[0], own.count("commons"))
    assert [client.id for client in view_of(reading, "bank").clients] == ["bank"]
    assert "clinic" in whole


def test_a_hold_changes_no_share_of_the_open_period(
    figures: Figures, clock: Clock, ledger: Ledger, keys: KeyRing
) -> None:
    """What is on hold counts until the period is closed, as the API has it."""
    ledger.append_many([make_receipt(number) for number in range(1, 5)])
    holds.place(ledger, "response", "r1", "a question", "tester")

    require_equal(read(figures, clock), Books(ledger, keys))
