"""What is signed verifies, and nothing else does; keys and notes keep the public formats."""

import base64
import copy
import json
import stat
from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from rewards.errors import SignatureError
from rewards.signing.documents import canonical_json, sign_document, verify_document
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.signing.notes import Checkpoint, open_checkpoint, open_note, sign_checkpoint, sign_note

KEY = SigningKey("consortium.example/ledger", bytes(range(32)))
OTHER = SigningKey("consortium.example/ledger", bytes(32))
CHECKPOINT = Checkpoint("consortium.example/ledger", 1234, sha256(b"root").digest())
STATEMENT = {"client": "clinic", "payout": 1050, "period": "2026-11", "proof": ["aa", "bb"], "nested": {"n": 1}}
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8)


def test_a_note_has_the_form_of_c2sp():
    """Text, empty line, em dash, name, base64 of key id and signature; checked here with the library alone."""
    text, line = sign_note("one\ntwo\n", KEY).split("\n\n")
    dash, name, value = line.rstrip("\n").split(" ")
    raw = base64.b64decode(value)
    public = KEY.public.public
    Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], b"one\ntwo\n")

    assert ("one\ntwo", "—", "consortium.example/ledger") == (text, dash, name)
    assert sha256(name.encode() + b"\n\x01" + public).digest()[:4] == raw[:4]


def test_a_public_key_is_spelled_as_go_spells_it():
    """Name, key id and base64 joined by plus signs, and read back to the same key."""
    name, key_id, encoded = KEY.public.encode().split("+", 2)

    assert (KEY.name, KEY.public.key_id) == (name, key_id)
    assert b"\x01" + KEY.public.public == base64.b64decode(encoded)
    assert KEY.public == VerifyKey.decode(KEY.public.encode())


def test_checkpoints_and_notes_come_back():
    """What was signed is read back whole, also beside signatures of strangers."""
    note = sign_checkpoint(CHECKPOINT, KEY)
    stranger = sign_note(CHECKPOINT.text(), OTHER).rpartition("\n\n")[2]

    assert CHECKPOINT == open_checkpoint(note, [OTHER.public, KEY.public], CHECKPOINT.origin)
    assert (CHECKPOINT.text(), KEY.public) == open_note(note + stranger, [KEY.public])


def test_lines_under_the_root_are_signed_with_it():
    """Extension lines come back in their order, and a checkpoint with one of them altered does not verify."""
    extended = replace(CHECKPOINT, extensions=("sealed_at_us 17", "previous_size 5"))
    note = sign_checkpoint(extended, KEY)

    assert extended == open_checkpoint(note, [KEY.public], CHECKPOINT.origin)
    with pytest.raises(SignatureError, match="altered"):
        open_checkpoint(note.replace("previous_size 5", "previous_size 4"), [KEY.public], CHECKPOINT.origin)


def test_any_altered_character_of_a_checkpoint_is_detected():
    """Each character in turn, replaced, doubled or left out, makes the note unreadable or unverifiable."""
    note = sign_checkpoint(CHECKPOINT, KEY)
    for place, character in enumerate(note):
        replaced = "B" if character != "B" else "C"
        for other in (replaced, character.swapcase(), character * 2, ""):
            altered = note[:place] + other + note[place + 1 :]
            if altered != note:
                with pytest.raises(SignatureError):
                    open_checkpoint(altered, [KEY.public], CHECKPOINT.origin)


@given(st.text(max_size=200))
def test_a_text_that_is_no_note_is_refused(text):
    """Any other text raises a SignatureError and nothing else."""
    with pytest.raises(SignatureError):
        open_note(text, [KEY.public])


def test_another_log_s_checkpoint_is_refused():
    """A checkpoint that verifies but is of another origin is named as such."""
    with pytest.raises(SignatureError, match=r"checkpoint of 'consortium\.example/ledger', not of 'elsewhere'"):
        open_checkpoint(sign_checkpoint(CHECKPOINT, KEY), [KEY.public], "elsewhere")


@pytest.mark.parametrize(
    "text",
    [
        "a\n01\n", "a\n1\n", "a\n-1\nx\n", "\n1\nAAAA\n", "a\n٣\nAAAA\n", "a\n1\nAAAA\n",
        CHECKPOINT.text() + "\n", CHECKPOINT.text() + "more", CHECKPOINT.text().replace("1234", "1" * 5000),
    ],
)  # fmt: skip
def test_a_malformed_checkpoint_is_refused(text):
    """A checkpoint has at least three lines, none of them empty, a plain decimal size, and a root of 32 bytes."""
    with pytest.raises(SignatureError):
        Checkpoint.parse(text)


@given(st.dictionaries(st.text(max_size=5).filter(lambda name: name != "signature"), SCALARS, max_size=5))
def test_signed_documents_verify_whatever_the_order_of_their_fields(document):
    """A document verifies by its key after a trip through JSON text with its fields in another order."""
    signed = sign_document(document, KEY)
    turned = json.loads(json.dumps(dict(reversed(signed.items()))))

    assert KEY.public == verify_document(turned, [OTHER.public, KEY.public])


def test_every_altered_field_of_a_document_is_detected():
    """Each value changed, each field removed, and a field added, in document and signature: none verifies."""
    signed = sign_document(STATEMENT, KEY)
    altered = [signed | {"more": 1}, signed | {"signature": {**signed["signature"], "more": 1}}]
    for part in ("document", "signature"):
        for name in signed if part == "document" else signed["signature"]:
            for change in (lambda fields, name: fields.pop(name), lambda fields, name: fields.update({name: "x"})):
                other = copy.deepcopy(signed)
                change(other if part == "document" else other["signature"], name)
                altered.append(other)

    assert 2 + 2 * 6 + 2 * 4 == len(altered)
    for other in altered:
        with pytest.raises(SignatureError):
            verify_document(other, [KEY.public])


def test_every_altered_character_of_a_signature_is_detected():
    """No second spelling of a signature verifies."""
    signed = sign_document(STATEMENT, KEY)
    value = signed["signature"]["value"]
    for place, character in enumerate(value):
        for other in "ABab01+/=" + character.swapcase():
            if other != character:
                forged = value[:place] + other + value[place + 1 :]
                with pytest.raises(SignatureError):
                    verify_document(signed | {"signature": {**signed["signature"], "value": forged}}, [KEY.public])


def test_an_unknown_signer_is_named():
    """A good signature by a key that is not known is refused, with the signer and the known keys named."""
    with pytest.raises(SignatureError, match=rf"{OTHER.public.key_id}.*known keys: .*{KEY.public.key_id}"):
        verify_document(sign_document(STATEMENT, OTHER), [KEY.public])


def test_what_json_cannot_keep_exactly_is_not_signed():
    """An integer beyond 2^53 - 1 or a NaN has no RFC 8785 form, so it is refused and not rounded."""
    for value in (2**53, -(2**53), float("nan")):
        with pytest.raises(SignatureError, match="RFC 8785"):
            canonical_json({"amount": value})


def test_a_document_is_signed_once():
    """Signing a signed document again would hide the first signature, so it is refused."""
    with pytest.raises(SignatureError, match="already"):
        sign_document(sign_document(STATEMENT, KEY), OTHER)


def test_a_saved_key_comes_back_and_is_private(tmp_path):
    """The file is readable by its owner alone, holds the same key, and is never written over."""
    path = tmp_path / "signing.key"
    key = SigningKey.generate("consortium.example/ledger")
    key.save(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.public == SigningKey.load(path).public
    assert key.public.verify(b"message", SigningKey.load(path).sign(b"message"))
    with pytest.raises(SignatureError, match=r"signing\.key: File exists"):
        OTHER.save(path)
    assert key.public == SigningKey.load(path).public


def test_a_key_does_not_show_its_secret():
    """What a log or a traceback prints of a key is its name and id."""
    assert repr(KEY) == f"SigningKey('consortium.example/ledger', {KEY.public.key_id})"


@pytest.mark.parametrize("content", ["", "ptk_1_2", "PRIVATE+KEY+", "PRIVATE+KEY+name+00000000+AQ=="])
def test_a_file_without_a_key_is_refused_by_name(tmp_path, content):
    """A file of another kind, or one cut short, is named in the error."""
    path = tmp_path / "signing.key"
    path.write_text(content)
    with pytest.raises(SignatureError, match=r"signing\.key"):
        SigningKey.load(path)


def test_a_key_file_with_an_altered_name_is_refused(tmp_path):
    """The key id binds name and key together: a renamed key is not taken."""
    path = tmp_path / "signing.key"
    SigningKey.generate("clinic.example").save(path)
    path.write_text(path.read_text().replace("clinic", "clinix"))
    with pytest.raises(SignatureError, match="key id"):
        SigningKey.load(path)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "line\nbreak"])
def test_a_name_that_would_break_a_note_is_refused(name):
    """Names stand between spaces and plus signs, so they may hold neither."""
    with pytest.raises(SignatureError, match="name"):
        SigningKey.generate(name)
