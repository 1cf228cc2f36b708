"""That a bundle was published is proved offline to anybody, and no altered proof is accepted."""

import copy
import json

import pytest

from rewards.errors import LogError, SignatureError
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.publication_proofs import publication_proof, verify_publication_proof
from rewards.log.sealer import seal
from rewards.signing.notes import open_checkpoint
from rewards.store import events
from rewards.store.publications import publish, withdraw
from tests.rewards.books import KEY, ORIGIN, OTHER_KEY

KEYS = [KEY.public]


def put_in_service(ledger, number, consortium="valley", *, of_round=None):
    digest = f"{number:064x}"
    with ledger.database.write() as connection:
        publish(
            connection,
            consortium,
            bundle=f"/bundles/{number}",
            model_sha256=digest,
            manifest_sha256=digest[::-1],
            round_number=of_round or number,
            actor="tester",
        )


@pytest.fixture
def books(url):
    """A ledger with three published rounds, of which the last is not sealed yet."""
    Ledger.prepare(url)
    ledger = Ledger(url)
    for number in (1, 2):
        put_in_service(ledger, number)
    seal(ledger, KEY, ORIGIN)
    put_in_service(ledger, 3)
    yield ledger
    ledger.close()


def read(ledger, *arguments):
    """A proof, through the JSON text in which it travels."""
    with ledger.database.read() as connection:
        return json.loads(json.dumps(publication_proof(connection, *arguments)))


def test_a_published_round_is_proved(books):
    """Its manifest's hash, its round, its consortium and its moment are what was signed, and by which checkpoint."""
    document = read(books, "valley", 1)
    proved = verify_publication_proof(document, KEYS, ORIGIN)

    assert ("valley", 1, f"{1:064x}"[::-1]) == (proved.consortium, proved.round, proved.manifest_sha256)
    assert document["event"]["at_us"] == proved.at_us > 0
    assert open_checkpoint(document["checkpoint"], KEYS, ORIGIN) == proved.checkpoint


def test_the_last_one_is_proved_once_it_is_sealed(books):
    """Without a round, the bundle that answers."""
    with pytest.raises(LogError, match="not sealed in the log yet"):
        read(books, "valley")
    seal(books, KEY, ORIGIN)

    assert 3 == verify_publication_proof(read(books, "valley"), KEYS, ORIGIN).round


def test_what_was_taken_back_is_not_proved_as_the_one_that_answers(books):
    """Without a round, the one before it is proved; the one that was taken back by its number, if none else has it."""
    with books.database.write() as connection:
        withdraw(connection, "valley", "tester")
    seal(books, KEY, ORIGIN)

    assert 2 == verify_publication_proof(read(books, "valley"), KEYS, ORIGIN).round
    assert 3 == verify_publication_proof(read(books, "valley", 3), KEYS, ORIGIN).round
    for number in (4, 5):
        put_in_service(books, number, of_round=3)
    with books.database.write() as connection:
        withdraw(connection, "valley", "tester")
    seal(books, KEY, ORIGIN)
    assert f"{4:064x}"[::-1] == verify_publication_proof(read(books, "valley", 3), KEYS, ORIGIN).manifest_sha256


@pytest.mark.parametrize(
    ("arguments", "words"), [(("hill",), "no bundle was"), (("valley", 9), "no bundle of round 9")]
)
def test_what_was_not_published_has_no_proof(arguments, words, books):
    """The consortium is named."""
    with pytest.raises(LogError, match=f"{words} .*published for consortium '{arguments[0]}'"):
        read(books, *arguments)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("document", f'{{"bundle":"/bundles/1","manifest_sha256":"{"f" * 64}","model_sha256":"{1:064x}","round":1}}'),
        ("subject", "hill"),
        ("sequence", 2),
        ("at_us", 0),
        ("kind", "bundle.withdrawn"),
        ("salt", "0" * 64),
        ("once", "x"),
        ("actor", float("inf")),
    ],
)
def test_an_altered_event_is_refused(field, value, books):
    """Whatever is changed of what was signed."""
    document = read(books, "valley", 1)
    document["event"][field] = value

    with pytest.raises(LogError):
        verify_publication_proof(document, KEYS, ORIGIN)


@pytest.mark.parametrize(
    "path", [("proof",), ("event",), ("event", "salt"), ("inclusion",), ("inclusion", "size"), ("checkpoint",)]
)
def test_a_proof_without_a_field_is_refused(path, books):
    """It is named, and nothing is taken for granted."""
    document = read(books, "valley", 1)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]

    with pytest.raises(
        LogError, match=rf"^{path[-2] if len(path) > 1 else 'proof'} must be an object of exactly [a-z]"
    ):
        verify_publication_proof(document, KEYS, ORIGIN)


def test_another_kind_of_proof_is_named(books):
    """As is an event that nothing could be hashed of."""
    document = read(books, "valley", 1)

    with pytest.raises(LogError, match=r"^proof must be 'publication', not 'receipt'$"):
        verify_publication_proof({**document, "proof": "receipt"}, KEYS, ORIGIN)
    with pytest.raises(LogError, match=r"^event: document has no canonical form"):
        verify_publication_proof({**document, "event": {**document["event"], "actor": float("inf")}}, KEYS, ORIGIN)


def test_another_place_or_signer_is_refused(books):
    """The leaf is where it is, and the checkpoint is that of a key that is known."""
    document = read(books, "valley", 1)
    moved = copy.deepcopy(document)
    moved["inclusion"]["leaf_index"] += 1

    with pytest.raises(LogError, match="the event is not in the log"):
        verify_publication_proof(moved, KEYS, ORIGIN)
    with pytest.raises(SignatureError):
        verify_publication_proof(document, [OTHER_KEY.public], ORIGIN)
    with pytest.raises(SignatureError):
        verify_publication_proof(document, KEYS, "other.example/ledger")


def test_another_event_is_no_publication(books):
    """A proof of something else that is in the log, truly, does not show that a bundle was published."""
    with books.database.write() as connection:
        sequence = events.record(
            connection, "key.created", "valley", "tester", {"manifest_sha256": "0" * 64, "round": 1}
        )
    seal(books, KEY, ORIGIN)
    document = read(books, "valley", 1)
    with books.database.read() as connection:
        (event,) = events.find(connection, kinds=["key.created"], subject="valley")
        place = proofs.inclusion(connection, "event", sequence)
    row = {**vars(event), "document": json.dumps(event.document, separators=(",", ":"), sort_keys=True)}
    document |= {"event": row, "checkpoint": place.pop("checkpoint"), "inclusion": place}

    with pytest.raises(LogError, match=r"event\.kind must be 'bundle\.published', not 'key\.created'"):
        verify_publication_proof(document, KEYS, ORIGIN)
