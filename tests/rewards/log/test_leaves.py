"""A leaf commits to every column of its row, and an opening shows one entry of a receipt and nothing more."""

import copy
import hmac
import json
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.errors import LogError
from rewards.log.leaves import event_leaf, leaf_of_opening, opening, receipt_leaf

RECEIPT = {
    "sequence": 3,
    "kind": "response",
    "response_id": "r3",
    "reverses": None,
    "booked_at_us": 1_700_000_000_000_000,
    "payload_sha256": "ab" * 32,
    "salt": "cd" * 32,
}
AMOUNTS = {"bank": 1_234_567, "clinic": 765_432, "rider": 0, "commons": 1}
EVENT = {
    "sequence": 9,
    "kind": "hold.placed",
    "subject": "h1",
    "at_us": 17,
    "actor": "command line",
    "document": '{"reason":"dispute"}',
    "salt": "ef" * 32,
    "once": None,
}


def spelled(document):
    """JSON as the books spell it, by the standard library's own words."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def hidden(part, document):
    """The commitment to a part of the receipt, step by step as the module's docstring says."""
    salt = hmac.new(RECEIPT["salt"].encode(), part.encode(), "sha256").hexdigest()
    return sha256(salt.encode() + spelled(document)).hexdigest()


def altered(value):
    """Values of the same and of other kinds that differ from `value`."""
    if isinstance(value, int):
        return [value + 1, value - 1, str(value), float(value) + 0.5, None, not value]
    if isinstance(value, str):
        first = "B" if value[:1] != "B" else "C"
        return [first + value[1:], value + "0", value[:-1], value.upper() + "x", None, 0]
    return ["x", 0]


def test_a_receipt_s_leaf_has_the_documented_form():
    """RFC 9162's leaf hash over head, payload and sorted entries, each hashed under a salt of its own."""
    head = {name: RECEIPT[name] for name in ("sequence", "kind", "response_id", "reverses", "booked_at_us")}
    document = {
        "leaf": "receipt",
        "head": hidden("head", head),
        "payload": hidden("payload", {"payload_sha256": RECEIPT["payload_sha256"]}),
        "entries": sorted(
            hidden(f"entry:{account}", {"account": account, "amount": amount}) for account, amount in AMOUNTS.items()
        ),
    }

    assert sha256(b"\x00" + spelled(document)).digest() == receipt_leaf(RECEIPT, AMOUNTS)


def test_an_event_s_leaf_has_the_documented_form():
    """RFC 9162's leaf hash over the row as it is stored."""
    assert sha256(b"\x00" + spelled({**EVENT, "leaf": "event"})).digest() == event_leaf(EVENT)


@pytest.mark.parametrize("name", RECEIPT)
def test_every_column_of_a_receipt_is_in_its_leaf(name):
    """Changing any column changes the leaf."""
    for value in altered(RECEIPT[name]):
        if name not in ("salt", "payload_sha256") or isinstance(value, str):
            assert receipt_leaf(RECEIPT, AMOUNTS) != receipt_leaf({**RECEIPT, name: value}, AMOUNTS)


@pytest.mark.parametrize("name", EVENT)
def test_every_column_of_an_event_is_in_its_leaf(name):
    """Changing any column changes the leaf."""
    for value in altered(EVENT[name]):
        assert event_leaf(EVENT) != event_leaf({**EVENT, name: value})


def test_every_entry_is_in_the_leaf():
    """An amount changed, an entry left out, added or renamed changes the leaf; the order of entries does not."""
    leaf = receipt_leaf(RECEIPT, AMOUNTS)
    for account, amount in AMOUNTS.items():
        others = {name: value for name, value in AMOUNTS.items() if name != account}

        assert leaf != receipt_leaf(RECEIPT, {**AMOUNTS, account: amount + 1})
        assert leaf != receipt_leaf(RECEIPT, others)
        assert leaf != receipt_leaf(RECEIPT, {**others, "stranger": amount})
        assert leaf == receipt_leaf(RECEIPT, {**others, account: amount})


@given(
    st.dictionaries(st.text(min_size=1, max_size=9), st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6),
    st.data(),
)
def test_an_opening_leads_to_the_leaf(amounts, data):
    """Whatever the accounts and amounts, what one account is shown, also through JSON text, gives the leaf's hash."""
    account = data.draw(st.sampled_from(sorted(amounts)))
    shown = opening(RECEIPT, amounts, account)

    assert receipt_leaf(RECEIPT, amounts) == leaf_of_opening(json.loads(json.dumps(shown)))
    assert (account, str(amounts[account])) == (shown["entry"]["account"], shown["entry"]["amount"])


def test_an_opening_of_the_version_before_still_opens():
    """Proofs that members hold spell the amount as a number; both spellings are the same leaf, and no third is."""
    shown = opening(RECEIPT, AMOUNTS, "bank")
    leaf, text = receipt_leaf(RECEIPT, AMOUNTS), shown["entry"]["amount"]

    assert leaf == leaf_of_opening(with_value(shown, ("entry", "amount"), int(text)))
    for other in (True, float(text), f"0{text}", f"+{text}", f"{text} ", ""):
        with pytest.raises(LogError, match=r"opening\.entry\.amount"):
            leaf_of_opening(with_value(shown, ("entry", "amount"), other))


@pytest.mark.parametrize("account", AMOUNTS)
def test_an_opening_reveals_no_other_entry(account):
    """Neither the names nor the amounts of others are in what one account is shown, nor what would let it try them."""
    text = json.dumps(opening(RECEIPT, AMOUNTS, account))
    for other, amount in AMOUNTS.items():
        if other != account:
            assert other not in text
            assert hidden(f"entry:{other}", {"account": other, "amount": amount}) in text
            assert amount < 10 or str(amount) not in text
    assert RECEIPT["salt"] not in text
    assert RECEIPT["payload_sha256"] not in text


def places(document, path=()):
    """Paths to every scalar of a document."""
    if isinstance(document, dict | list):
        steps = document.items() if isinstance(document, dict) else enumerate(document)
        for name, value in steps:
            yield from places(value, (*path, name))
    else:
        yield path


def with_value(document, path, value):
    """A copy of the document with another value at a path."""
    changed = copy.deepcopy(document)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return changed


def test_every_altered_field_of_an_opening_is_detected():
    """Each field in turn with another value gives another hash, or is refused."""
    shown, leaf = opening(RECEIPT, AMOUNTS, "bank"), receipt_leaf(RECEIPT, AMOUNTS)
    found = list(places(shown))

    assert 6 + 3 + 3 + 1 == len(found)
    for path in found:
        old = shown
        for step in path:
            old = old[step]
        for value in altered(old):
            with suppress(LogError):
                assert leaf != leaf_of_opening(with_value(shown, path, value)), path


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (None, "opening must be an object of exactly head, entry, others, payload"),
        ({}, "opening must be an object of exactly head, entry, others, payload"),
    ],
)
def test_what_is_no_opening_is_refused(document, named):
    """Another form is refused with the field named."""
    with pytest.raises(LogError, match=f"^{named}$"):
        leaf_of_opening(document)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("head",), 1, "opening.head must be an object of exactly sequence, kind, .*, salt"),
        (("entry",), {}, "opening.entry must be an object of exactly account, amount, salt"),
        (("head", "salt"), "x", "opening.head.salt must be 64 hex digits, not 'x'"),
        (("entry", "salt"), "x", "opening.entry.salt must be 64 hex digits, not 'x'"),
        (("payload",), 7, "opening.payload must be 64 hex digits, not 7"),
        (("head", "sequence"), float("nan"), "opening: .*no canonical form: .*"),
    ],
)
def test_a_part_of_another_form_is_named(path, value, named):
    """And what would be right of it."""
    with pytest.raises(LogError, match=f"^{named}$"):
        leaf_of_opening(with_value(opening(RECEIPT, AMOUNTS, "bank"), path, value))


def test_an_opening_has_one_spelling():
    """Other entries out of order, twice, as upper case or of another kind are refused, and so is NaN for an amount."""
    shown = opening(RECEIPT, AMOUNTS, "bank")
    first, second, third = shown["others"]
    for others in ([second, first, third], [first, first, second]):
        with pytest.raises(LogError, match=r"^opening\.others must be in order, each once$"):
            leaf_of_opening({**shown, "others": others})
    for others in ([first.upper(), second, third], [1], "x", {}):
        with pytest.raises(LogError, match=r"opening\.others"):
            leaf_of_opening({**shown, "others": others})
    with pytest.raises(LogError, match="opening"):
        leaf_of_opening(with_value(shown, ("entry", "amount"), float("nan")))


def test_only_an_account_of_the_receipt_is_shown_it():
    """Who has no entry in a receipt is told so, with the receipt named."""
    with pytest.raises(LogError, match="'r3' has no entry of 'stranger'"):
        opening(RECEIPT, AMOUNTS, "stranger")
