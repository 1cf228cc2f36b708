"""A client proves its entry offline, to anybody, without showing others'; and no altered proof is accepted."""

import copy
import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.errors import LogError, RewardsError, SignatureError
from rewards.ledger.ledger import Ledger
from rewards.log.checkpoints import latest_checkpoint
from rewards.log.merkle import leaf_hash, verify_inclusion
from rewards.log.proofs import consistency, inclusion, receipt_proof, verify_consistency, verify_receipt_proof
from rewards.log.sealer import seal
from rewards.signing.encoding import base64_bytes
from rewards.signing.keys import SigningKey
from rewards.signing.notes import Checkpoint, open_checkpoint, sign_checkpoint
from tests.rewards.books import KEY, ORIGIN, OTHER_KEY, write_books
from tests.rewards.receipts import MEMBERS, make_receipt

KEYS = [KEY.public]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def books(url):
    """Sealed books, open."""
    write_books(url)
    ledger = Ledger(url)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Proof of clinic's entry of a response, its receipt, and the proof that the log only grew, with the older note."""
    url = f"sqlite:///{tmp_path_factory.mktemp('proofs')}/ledger.db"
    notes = write_books(url)
    ledger = Ledger(url)
    with ledger.database.read() as connection:
        first = Checkpoint.parse(notes[0].partition("\n\n")[0] + "\n").size
        found = receipt_proof(connection, "r4", "clinic"), ledger.receipt("r4"), consistency(connection, first)
    ledger.close()
    return *found, notes[0]


def read(ledger, prove, *arguments):
    """A proof, through the JSON text in which it travels."""
    with ledger.database.read() as connection:
        return json.loads(json.dumps(prove(connection, *arguments)))


def places(document, path=()):
    """Paths to every scalar of a document."""
    if isinstance(document, dict | list):
        for name, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(value, (*path, name))
    else:
        yield path


def at(document, path):
    """The value at a path."""
    for step in path:
        document = document[step]
    return document


def with_value(document, path, value):
    """A copy of the document with another value at a path; without it, when the value is `...`."""
    changed = copy.deepcopy(document)
    parent = at(changed, path[:-1])
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed


def altered(value):
    """Other values of the same and of other kinds, and none at all."""
    yield from (..., [], {}, "x")
    if value is not None:
        yield None
    if isinstance(value, int):
        yield from (value + 1, value - 1, -value - 1, value + 0.5, str(value), 2**70)
    elif isinstance(value, str):
        for place in {0, len(value) // 2, len(value) - 1}:
            other = "B" if value[place] != "B" else "C"
            yield from (value[:place] + other + value[place + 1 :], value[:place] + value[place + 1 :])
        yield from {value + value[-1], value.upper() if value.upper() != value else value.lower()} - {value}
        yield 0
    else:
        yield from (0, True, "r1")


@pytest.mark.parametrize("client", [*MEMBERS, "commons"])
def test_every_account_proves_its_entry(books, client):
    """The proof shows the client's amount of each receipt, to somebody who has the public key and the log's name."""
    for receipt in books.receipts_after(0):
        proof = read(books, receipt_proof, receipt.response_id, client)
        found = asdict(verify_receipt_proof(proof, [OTHER_KEY.public, *KEYS], ORIGIN))
        checkpoint = found.pop("checkpoint")

        named = ("response_id", "sequence", "kind", "reverses", "booked_at_us")
        assert {
            "client": client,
            "amount": receipt.amounts[client],
            **{name: getattr(receipt, name) for name in named},
        } == found
        assert proof["inclusion"]["size"] == checkpoint["size"]


def test_a_proof_reveals_nothing_of_other_clients(shown):
    """Neither another client's name, nor its amount, nor salt or payload hash by which to try amounts, is in it."""
    proof, receipt, *_ = shown
    text = json.dumps(proof)
    amounts = receipt.amounts

    assert "clinic" in text and str(amounts["clinic"]) in text
    for account, amount in amounts.items():
        if account != "clinic":
            assert account not in text
            assert str(amount) not in text or amount < 100
    assert receipt.salt not in text
    assert receipt.payload_sha256 not in text
    assert receipt.model_sha256 not in text


def test_every_altered_field_of_a_receipt_proof_is_refused(shown):
    """Every scalar of opening, inclusion and checkpoint, altered in turn in a dozen ways or left out, is refused."""
    proof = shown[0]
    paths = list(places(proof))

    assert len(paths) > 18
    for path in paths:
        for value in altered(at(proof, path)):
            with pytest.raises((LogError, SignatureError)):
                verify_receipt_proof(with_value(proof, path, value), KEYS, ORIGIN)
    assert "clinic" == verify_receipt_proof(proof, KEYS, ORIGIN).client


def test_every_character_of_a_proof_s_checkpoint_counts(shown):
    """Each character of the signed note replaced or left out is refused."""
    proof = shown[0]
    note = proof["checkpoint"]
    for place, character in enumerate(note):
        for other in ("B" if character != "B" else "C", ""):
            with pytest.raises(SignatureError):
                verify_receipt_proof({**proof, "checkpoint": note[:place] + other + note[place + 1 :]}, KEYS, ORIGIN)


def test_what_is_missing_or_too_much_is_refused(shown):
    """Each object of a proof without one of its fields, or with one more, and each list likewise, is refused."""
    proof = shown[0]
    for path in ((), ("opening",), ("opening", "head"), ("opening", "entry"), ("inclusion",)):
        changed = copy.deepcopy(proof)
        at(changed, path)["more"] = 1
        with pytest.raises(LogError, match="exactly"):
            verify_receipt_proof(changed, KEYS, ORIGIN)
    for path in (("opening", "others"), ("inclusion", "hashes")):
        values = at(proof, path)
        for other in (values[1:], values[:-1], values + values[:1], values[::-1]):
            with pytest.raises(LogError):
                verify_receipt_proof(with_value(proof, path, other), KEYS, ORIGIN)


@given(JUNK)
def test_anything_else_is_refused(document):
    """Whatever JSON is given for a proof raises an error of ours and nothing else."""
    with pytest.raises(RewardsError):
        verify_receipt_proof(document, KEYS, ORIGIN)
    with pytest.raises(RewardsError):
        verify_consistency(document, "", KEYS, ORIGIN)


@given(junk=JUNK, data=st.data())
def test_junk_in_any_place_is_refused(shown, junk, data):
    """Any JSON in any place of a proof that is not what stood there is refused by an error of ours."""
    path = data.draw(st.sampled_from(list(places(shown[0]))))
    if repr(junk) != repr(at(shown[0], path)):
        with pytest.raises(RewardsError):
            verify_receipt_proof(with_value(shown[0], path, junk), KEYS, ORIGIN)


def test_a_proof_s_error_names_what_does_not_fit(shown):
    """An altered amount, a size, a stranger's key, another log and another kind of proof are each told apart."""
    proof, _, growth, _ = shown
    size = proof["inclusion"]["size"]
    for path, value, named in (
        (("opening", "entry", "amount"), 9, "opening is not in the log"),
        (("opening", "entry", "salt"), "aa", r"opening\.entry\.salt must be 64 hex digits"),
        (("inclusion", "size"), size + 1, rf"inclusion\.size is {size + 1}, but the checkpoint is of {size}"),
        (("inclusion", "hashes"), "x", r"inclusion\.hashes"),
        (("inclusion", "hashes", 0), "AAAA", r"inclusion\.hashes\[0\]"),
        (("checkpoint",), 7, "checkpoint must be a signed note"),
        (("proof",), "consistency", "'receipt'"),
    ):
        with pytest.raises((LogError, SignatureError), match=named):
            verify_receipt_proof(with_value(proof, path, value), KEYS, ORIGIN)
    with pytest.raises(SignatureError, match="no known key"):
        verify_receipt_proof(proof, [OTHER_KEY.public], ORIGIN)
    with pytest.raises(SignatureError, match="not of 'elsewhere'"):
        verify_receipt_proof(proof, KEYS, "elsewhere")
    with pytest.raises(LogError, match="exactly"):
        verify_receipt_proof(growth, KEYS, ORIGIN)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ((), "proof must be an object of exactly checkpoint, inclusion, opening, proof"),
        (("inclusion",), "inclusion must be an object of exactly hashes, leaf_index, size"),
    ],
)
def test_what_has_other_fields_is_told_which_it_must_have(shown, path, message):
    """The object is named, and every field of it."""
    changed = copy.deepcopy(shown[0])
    at(changed, path)["more"] = 1

    with pytest.raises(LogError) as refusal:
        verify_receipt_proof(changed, KEYS, ORIGIN)
    assert message == str(refusal.value)


def test_the_messages_of_what_was_altered_are_whole_sentences(shown):
    """They are what a member sends to whoever runs the service."""
    proof, _, growth, held = shown
    place = proof["inclusion"]["leaf_index"]
    moved = with_value(proof, ("inclusion", "leaf_index"), place - 1)
    apart = "it, inclusion and checkpoint do not belong together, or one was altered"
    grown = f"the log of {growth['second']} leaves does not extend the one of {growth['first']} that you hold"
    for prove, message in (
        (
            lambda: verify_receipt_proof(moved, KEYS, ORIGIN),
            f"the opening is not in the log at inclusion.leaf_index: {apart}",
        ),
        (
            lambda: verify_consistency({**growth, "hashes": growth["hashes"][1:]}, held, KEYS, ORIGIN),
            f"{grown}: its history was altered, or the proof was",
        ),
        (
            lambda: verify_consistency({**growth, "hashes": "x"}, held, KEYS, ORIGIN),
            "hashes must be a list of hashes in base64, not 'x'",
        ),
        (
            lambda: verify_consistency({**growth, "more": 1}, held, KEYS, ORIGIN),
            "proof must be an object of exactly checkpoint, first, hashes, proof, second",
        ),
    ):
        with pytest.raises(LogError) as refusal:
            prove()
        assert message == str(refusal.value)


def test_another_ledger_s_key_proves_nothing_of_this_one(shown):
    """Who knows the keys of two ledgers does not take one's checkpoint from the other's key."""
    foreign = SigningKey("another/ledger", bytes(range(1, 33)))
    proof = shown[0]
    checkpoint = open_checkpoint(proof["checkpoint"], KEYS, ORIGIN)
    forged = {**proof, "checkpoint": sign_checkpoint(checkpoint, foreign)}

    assert "clinic" == verify_receipt_proof(proof, [foreign.public, *KEYS], ORIGIN).client
    with pytest.raises(SignatureError, match="no known key signed"):
        verify_receipt_proof(forged, [foreign.public, *KEYS], ORIGIN)
    with pytest.raises(SignatureError, match="signs for the ledger 'another/ledger'"):
        verify_receipt_proof(forged, [foreign.public], ORIGIN)


def test_a_proof_that_another_log_signed_is_refused(shown):
    """A checkpoint of the right name and key over another root does not fit the opening."""
    proof = shown[0]
    other = Checkpoint(ORIGIN, proof["inclusion"]["size"], leaf_hash(b"another"))
    with pytest.raises(LogError, match="not in the log"):
        verify_receipt_proof({**proof, "checkpoint": sign_checkpoint(other, KEY)}, KEYS, ORIGIN)


def test_events_are_proved_against_any_checkpoint(books):
    """Receipts and events are under each checkpoint that came after them, and under no earlier one."""
    first = books.receipts_after(0, 1)[0]
    with books.database.read() as connection:
        latest = latest_checkpoint(connection)
        proof = inclusion(connection, "event", 1)
        older = inclusion(connection, "receipt", first.sequence, size=consistency_sizes(books)[0])

    assert latest.size == proof["size"] and latest.note == proof["checkpoint"]
    assert consistency_sizes(books)[0] == older["size"] == open_checkpoint(older["checkpoint"], KEYS, ORIGIN).size
    with books.database.read() as connection, pytest.raises(LogError, match=r"receipt 8 is leaf \d+, not under"):
        inclusion(connection, "receipt", 8, size=older["size"])


def test_a_checkpoint_of_n_leaves_ends_before_leaf_n(books):
    """The first leaf behind a checkpoint is refused as not under it, and the last one before is proved."""
    size = consistency_sizes(books)[0]
    with books.database.read() as connection:
        query = "SELECT leaf_index, source, sequence FROM leaves WHERE leaf_index IN (%d, %d) ORDER BY leaf_index"
        (_, *last), (_, *behind) = connection.exec_driver_sql(query % (size - 1, size)).all()

        assert size - 1 == inclusion(connection, *last, size=size)["leaf_index"]
        with pytest.raises(LogError, match=f"is leaf {size}, not under the checkpoint of size {size}"):
            inclusion(connection, *behind, size=size)


def consistency_sizes(ledger):
    """Sizes of the checkpoints."""
    with ledger.database.read() as connection:
        return list(connection.exec_driver_sql("SELECT size FROM checkpoints ORDER BY size").scalars())


def test_an_inclusion_proof_verifies_with_the_rfc_alone(books):
    """The hashes of a proof lead from the stored leaf hash to the signed root, and from no other leaf or place."""
    with books.database.read() as connection:
        proof = inclusion(connection, "event", 3)
        leaves = (
            connection.exec_driver_sql("SELECT hash FROM nodes WHERE level = 0 ORDER BY node_index").scalars().all()
        )
    hashes = [base64_bytes(text, 32, "hash") for text in proof["hashes"]]
    checkpoint = open_checkpoint(proof["checkpoint"], KEYS, ORIGIN)
    accepted = [
        (index, leaf)
        for index in range(-1, proof["size"] + 1)
        for leaf in range(len(leaves))
        if verify_inclusion(bytes.fromhex(leaves[leaf]), index, proof["size"], hashes, checkpoint.root)
    ]

    assert [(proof["leaf_index"],) * 2] == accepted


def test_what_is_not_sealed_yet_says_when_it_will_be(ledger):
    """Before any checkpoint, and for a receipt behind the last one, the error says to wait for the next interval."""
    ledger.append(make_receipt("r0"))
    with pytest.raises(
        LogError, match=r"^nothing is sealed in the log yet; what is booked is within the next sealing interval$"
    ):
        read(ledger, receipt_proof, "r0", "bank")
    seal(ledger, KEY, ORIGIN)
    ledger.append(make_receipt("r1"))
    with pytest.raises(LogError, match=r"receipt 2 is not sealed.*within the next sealing interval"):
        read(ledger, receipt_proof, "r1", "bank")
    seal(ledger, KEY, ORIGIN)

    assert 2 == verify_receipt_proof(read(ledger, receipt_proof, "r1", "bank"), KEYS, ORIGIN).sequence


@pytest.mark.parametrize(
    ("prove", "arguments", "named"),
    [
        (receipt_proof, ("nowhere", "bank"), "no receipt 'nowhere'"),
        (receipt_proof, ("r0", "stranger"), "no entry of 'stranger'"),
        (inclusion, ("event", 999), "event 999 is not sealed"),
        (inclusion, ("event", 1, 4), "no checkpoint of size 4; the latest is of size"),
        (consistency, (0,), "first must be"),
        (consistency, (10_000,), "first must be"),
        (consistency, (1, 2), "no checkpoint of size 2"),
    ],
)
def test_what_cannot_be_proved_is_named(books, prove, arguments, named):
    """A receipt, client, event or size that is not there raises a LogError that says which."""
    with pytest.raises(LogError, match=named):
        read(books, prove, *arguments)


def test_the_log_is_proved_to_extend_every_older_checkpoint(books):
    """Whoever holds any earlier checkpoint sees that the latest one continues it, and gets that one."""
    sizes = consistency_sizes(books)
    with books.database.read() as connection:
        notes = [inclusion(connection, "receipt", 1, size)["checkpoint"] for size in sizes]
    for size, note in zip(sizes, notes, strict=True):
        proof = read(books, consistency, size)

        assert sizes[-1] == verify_consistency(proof, note, KEYS, ORIGIN).size
    between = read(books, consistency, sizes[0], sizes[1])
    assert sizes[1] == verify_consistency(between, notes[0], KEYS, ORIGIN).size
    with pytest.raises(LogError, match=f"first is {sizes[0]}, but its checkpoint is of {sizes[1]}"):
        verify_consistency(between, notes[1], KEYS, ORIGIN)


def test_every_altered_field_of_a_consistency_proof_is_refused(shown):
    """Every scalar altered in turn, each hash left out, and a checkpoint held from another history, are refused."""
    _, _, proof, held = shown
    assert proof["second"] == verify_consistency(proof, held, KEYS, ORIGIN).size

    for path in places(proof):
        for value in altered(at(proof, path)):
            with pytest.raises((LogError, SignatureError)):
                verify_consistency(with_value(proof, path, value), held, KEYS, ORIGIN)
    rewritten = sign_checkpoint(Checkpoint(ORIGIN, proof["first"], leaf_hash(b"what you saw")), KEY)
    with pytest.raises(LogError, match="does not extend the one of"):
        verify_consistency(proof, rewritten, KEYS, ORIGIN)
    with pytest.raises(LogError, match="'consistency'"):
        verify_consistency({**proof, "proof": "receipt"}, held, KEYS, ORIGIN)
