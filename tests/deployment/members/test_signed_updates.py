"""A statement holds for the update that was signed, and for no other; so does the aggregator's receipt for it."""

import json
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deployment.members.signed_updates import (
    SentUpdate,
    check_receipt,
    check_statement,
    read_statement,
    sign_receipt,
    sign_update,
)
from rewards.errors import SignatureError
from rewards.signing.documents import canonical_json, sign_document
from rewards.signing.keys import SigningKey
from tests.deployment.members.signed_rounds import AGGREGATOR, KEYS

HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
UPDATES = st.builds(
    SentUpdate,
    NAMES,
    st.integers(1, 10**6),
    NAMES,
    HASHES,
    HASHES,
    st.integers(1, 10**9).map(float) | st.floats(min_value=1e-300, max_value=1e300),
)
KEY = KEYS["north"]
SENT = SentUpdate("hospitals", 3, "north", "a" * 64, "b" * 64, 40.0)


@given(UPDATES)
def test_what_was_signed_holds_and_reads_back(sent):
    """Whatever the names, hashes and weight are, and however the weight is spelled in JSON."""
    statement = sign_update(sent, KEY)

    check_statement(statement, sent, KEY.public)
    assert sent == read_statement(statement, KEY.public)
    check_receipt(sign_receipt(sent, statement, AGGREGATOR), sent, statement, [AGGREGATOR.public])


@given(UPDATES, UPDATES, st.sampled_from([*vars(SENT)]))
def test_a_statement_of_another_update_is_refused_by_field(sent, other, field):
    """Another consortium, round, client, base, hash or weight: the field is named, and what it was signed for."""
    assume(getattr(sent, field) != getattr(other, field))
    claimed = replace(sent, **{field: getattr(other, field)})

    with pytest.raises(SignatureError, match=f"it was signed for {field} "):
        check_statement(sign_update(sent, KEY), claimed, KEY.public)
    with pytest.raises(SignatureError, match=f"it was signed for {field} "):
        check_receipt(sign_receipt(sent, None, AGGREGATOR), claimed, None, [AGGREGATOR.public])


@given(st.sampled_from([*vars(SENT)]), st.none() | st.booleans() | st.integers() | st.text(max_size=5))
def test_an_altered_statement_is_refused(field, value):
    """Whoever changes a field breaks the signature, whatever the new value is."""
    document = json.loads(sign_update(SENT, KEY))
    assume(document[field] != value or isinstance(value, bool))
    document[field] = value

    with pytest.raises(SignatureError):
        check_statement(json.dumps(document), SENT, KEY.public)


def test_another_key_is_refused_even_of_the_same_name():
    """A key is told by its bytes: one of the same name is another."""
    impostor = SigningKey(KEY.name, bytes(32))

    for key in (KEYS["south"], impostor):
        with pytest.raises(SignatureError, match="not among the known keys"):
            check_statement(sign_update(SENT, key), SENT, KEY.public)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ("[" * 16_000, "no JSON"),
        ('{"kind": 1, "kind": 1}', "twice"),
        ("{}", "needs a field 'signature'"),
        ('{"signature": {"algorithm": "Ed25519", "key_id": [], "key_name": {}, "value": 1}}', "signature.value"),
    ],
)
def test_what_is_no_statement_is_refused(text, words):
    """Whatever a stranger put in its place."""
    with pytest.raises(SignatureError, match=words):
        check_statement(text, SENT, KEY.public)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("round", "1", 'round must be a whole number, not "1"'),
        ("round", True, "round must be a whole number, not true"),
        ("client", None, "client must be a text, not null"),
        ("weight", {}, "weight must be a number as text"),
    ],
)
def test_a_signed_statement_of_other_fields_is_refused(field, value, words):
    """An app that signs with the node's key may sign anything; who reads it back is told what it is."""
    document = {name: each for name, each in json.loads(sign_update(SENT, KEY)).items() if name != "signature"}
    text = canonical_json(sign_document({**document, field: value}, KEY)).decode()

    with pytest.raises(SignatureError, match=words):
        read_statement(text, KEY.public)


def test_a_receipt_is_no_statement_and_the_other_way_round():
    """Signed by the same key and of the same update, one does not stand for the other."""
    statement, receipt = sign_update(SENT, KEY), sign_receipt(SENT, None, KEY)

    with pytest.raises(SignatureError, match="no document of kind 'protoken-update/1'"):
        check_statement(receipt, SENT, KEY.public)
    with pytest.raises(SignatureError, match=r"no statement of kind"):
        read_statement(receipt, KEY.public)
    with pytest.raises(SignatureError, match="no document of kind 'protoken-update-receipt/1'"):
        check_receipt(statement, SENT, None, [KEY.public])


def test_a_receipt_names_the_statement_that_came_with_it():
    """So whoever has the receipt can show what else the aggregator was sent."""
    statement = sign_update(SENT, KEY)

    with pytest.raises(SignatureError, match="statement_sha256"):
        check_receipt(sign_receipt(SENT, None, AGGREGATOR), SENT, statement, [AGGREGATOR.public])
