"""What the version before kept beside its books: its spool is booked, its texts are shown, its bundle opens."""

import threading

import pytest

from attribution.bundle.bundle import open_bundle, verify_bundle
from deployment.health.places import ledger_folder
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.recovery import Recovery
from deployment.replica.messages import ModelCard
from deployment.retention.replays import Replays
from deployment.retention.texts import Texts
from deployment.spool.spool import Spool
from rewards.audit.replay import audit
from rewards.ledger.ledger import Ledger
from tests.fixtures import copied
from tests.waiting import PATIENCE_S, until

WAITING, STREAM = "chatcmpl-0052", "chatcmpl-0053"
LONG_S = 86_400.0 * 36_500


@pytest.fixture
def before(tmp_path):
    """All that the version before kept, in a folder of its own, its ledger migrated."""
    folder = copied(tmp_path)
    Ledger.migrate(f"sqlite:///{folder}/ledger.db")
    return folder


@pytest.fixture
def ledger(before):
    """Its ledger."""
    ledger = Ledger(f"sqlite:///{before}/ledger.db")
    yield ledger
    ledger.close()


@pytest.mark.long
def test_its_spooled_receipt_is_booked_and_its_stream_recovered(before, ledger):
    """The receipt that waited in the spool is booked, and the stream that a kill cut is handed to the model."""
    bundle = open_bundle(before / "bundle")
    card = ModelCard("valley", bundle.manifest.global_.sha256, bundle.client_ids, 128)
    spool = Spool(ledger_folder(before / "spool", ledger))
    bookings = BookingQueue(ledger, spool, lambda _spooled, _seconds: None)
    streams, given = [], threading.Event()

    def attribute(progress):
        streams.append(progress)
        given.set()

    recovery = Recovery(spool, bookings, ledger, card.global_sha256.__eq__, attribute)
    try:
        assert given.wait(PATIENCE_S)
        until(lambda: ledger.is_booked(WAITING))
    finally:
        recovery.close()
        bookings.close()
        spool.close()

    assert [(STREAM, 16)] == [(progress.response_id, len(progress.token_ids)) for progress in streams]
    assert 9 == ledger.receipt(WAITING).tokens
    assert audit(f"sqlite:///{before}/ledger.db").difference is None


def test_its_texts_and_replays_are_read(before, ledger):
    """A kept text and a kept answer of then are found, each as a whole."""
    text = Texts(before / "texts", LONG_S).find(WAITING)
    replay = Replays(ledger_folder(before / "spool", ledger) / "replays", LONG_S).find(WAITING)

    assert ("an answer", 9) == (text.text, len(text.tokens))
    assert (("an ", "answer"), 9) == (replay.pieces, replay.end.completion_tokens)


def test_its_bundle_opens_and_verifies(before, monkeypatch):
    """The bundle's hashes agree, and its model is the base and the clients' updates to the last bit that counts."""
    monkeypatch.chdir(before)  # where the reference of its base leads
    verification = verify_bundle(open_bundle(before / "bundle"))

    assert () == verification.problems
    assert {"north", "south", "rider"} == set(verification.client_norms)
    assert 0 == verification.client_norms["rider"]
