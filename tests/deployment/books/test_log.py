"""Proofs for whoever may see what they prove, and checkpoints before there is one."""

from pathlib import Path

import pytest

from deployment.books.books import Books
from deployment.books.log import (
    latest_checkpoint,
    prove_consistency,
    prove_entry,
    prove_inclusion,
    seal_log,
    signed_checkpoint,
    verify_keys,
)
from deployment.errors import InvalidRequestError, NotFoundError, UnavailableError
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.world import make_world


def test_before_anything_is_sealed_there_is_no_checkpoint(ledger: Ledger, keys: KeyRing) -> None:
    """Who asks for the latest is told so, who wants one is refused, and without a key nothing can be sealed."""
    books = Books(ledger, keys)

    assert latest_checkpoint(books) is None
    assert [] == verify_keys(books)
    with pytest.raises(NotFoundError, match="there is no checkpoint of size 7"):
        signed_checkpoint(books, 7)
    with pytest.raises(UnavailableError, match="no signing key"):
        seal_log(books)


def test_a_member_proves_its_own_entries_alone(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> None:
    """Another client's entry does not exist for it, in the same words as one that really does not."""
    books = make_world(ledger, keys, tmp_path).books

    assert prove_entry(books, "bank", "shared-one", None) == prove_entry(books, None, "shared-one", "bank")
    with pytest.raises(NotFoundError, match="client 'clinic' has no entry in a receipt 'shared-one'"):
        prove_entry(books, "bank", "shared-one", "clinic")
    with pytest.raises(NotFoundError, match="client 'bank' has no entry in a receipt 'clinic-alone'"):
        prove_entry(books, "bank", "clinic-alone", None)
    with pytest.raises(InvalidRequestError, match="client is missing"):
        prove_entry(books, None, "shared-one", None)
    with pytest.raises(NotFoundError, match="receipt 2 is not in the log"):
        prove_inclusion(books, "bank", "receipt", 2, None)


def test_a_log_only_grows(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> None:
    """A proof goes from an older checkpoint to a newer one, to the latest where none is named, and never back."""
    books = make_world(ledger, keys, tmp_path).books
    latest = latest_checkpoint(books)

    assert latest is not None
    assert latest == signed_checkpoint(books, None) == signed_checkpoint(books, latest.size)
    assert prove_consistency(books, latest.size) == prove_consistency(books, latest.size, latest.size)
    with pytest.raises(InvalidRequestError, match="a log only grows"):
        prove_consistency(books, latest.size, latest.size - 1)
