"""What a watcher asks about the books: sealed or not, the last responses, events by kind, clients in order."""

from rewards.log.checkpoints import latest_checkpoint
from rewards.log.sealer import seal
from rewards.store import clients, events
from rewards.views.ledger_health import Condition, condition, last_responses
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.receipts import MEMBERS, make_receipt


def condition_of(ledger):
    with ledger.database.read() as connection:
        return condition(connection)


def test_what_no_checkpoint_covers_is_counted(ledger):
    """Rows that wait are receipts and events; the oldest of either tells since when; sealing covers them."""
    registered = len(MEMBERS)
    empty = condition_of(ledger)
    ledger.append_many([make_receipt(f"r{number}") for number in range(3)])
    waiting = condition_of(ledger)
    seal(ledger, KEY, ORIGIN)
    seal(ledger, KEY, ORIGIN)  # the event by which the key was registered
    sealed = condition_of(ledger)
    ledger.append(make_receipt("later"))
    later = condition_of(ledger)
    with ledger.database.read() as connection:
        (first_event, *_) = events.find(connection)
        checkpoint = latest_checkpoint(connection)
    booked_us = [row.booked_at_us for row in ledger.receipts_after(0)]

    assert Condition(0, 0, 0, registered, first_event.at_us) == empty
    assert Condition(booked_us[2], 0, 0, registered + 3, first_event.at_us) == waiting
    assert Condition(booked_us[2], registered + 4, checkpoint.sealed_at_us, 0, 0) == sealed
    assert Condition(booked_us[3], registered + 4, checkpoint.sealed_at_us, 1, booked_us[3]) == later


def test_the_last_responses_come_in_the_order_of_booking(ledger):
    """Only responses, only those after a receipt, and of many the last ones."""
    ledger.append_many([make_receipt(f"r{number}") for number in range(4)])
    ledger.reverse("r0", "a test", "me")
    ledger.append(make_receipt("r4"))

    def names(after, limit):
        with ledger.database.read() as connection:
            return [each.response_id for each in last_responses(connection, after, limit)]

    assert ["r2", "r3", "r4"] == names(0, 3)
    assert ["r3", "r4"] == names(3, 10)
    assert [] == names(6, 10)


def test_events_are_counted_by_kind_and_clients_listed_as_they_came(ledger):
    """Counts go on from an event; the order over consortia is that of registration, which never changes."""
    ledger.register("other", {"x": "X"})
    ledger.register("demo", {"late": "Late", **MEMBERS})
    with ledger.database.read() as connection:
        last = events.last_event(connection)
        counted = [events.counts(connection, after) for after in (0, last - 1, last)]
        order = clients.in_order(connection)

    assert [{clients.KIND: 5}, {clients.KIND: 1}, {}] == counted
    assert [*(("demo", member) for member in MEMBERS), ("other", "x"), ("demo", "late")] == order
