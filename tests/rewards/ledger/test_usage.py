"""What an application has generated, by the books."""

import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.ledger.ledger import Ledger
from rewards.ledger.usage import tokens_of
from tests.rewards.receipts import make_receipt


def test_tokens_are_counted_by_application_and_less_what_was_reversed(ledger):
    """Each application's own tokens; a reversal takes the tokens of its response back."""
    for number, application in enumerate(["a", "b", "a"]):
        ledger.append(replace(make_receipt(f"r{number}", tokens=10 + number), application=application))
    with ledger.database.read() as connection:
        assert [(22, 3), (11, 2), (0, 0)] == [tokens_of(connection, name) for name in ("a", "b", "c")]
    ledger.reverse("r0", "a mistake", "tester")
    with ledger.database.read() as connection:
        assert ((12, 4), (-10, 4), (0, 4)) == tuple(tokens_of(connection, "a", after) for after in (0, 3, 4))


@pytest.mark.long
@settings(deadline=None, max_examples=20)
@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 50), st.booleans()), max_size=12))
def test_reading_on_from_where_one_stopped_is_reading_all(steps, prepared_file, tmp_path_factory):
    """Sums of what came since add up to the sum of everything, wherever one stopped."""
    ledger = Ledger(f"sqlite:///{shutil.copy(prepared_file, tmp_path_factory.mktemp('usage'))}")
    total, last = 0, 0
    for number, (application, tokens, stops) in enumerate(steps):
        ledger.append(replace(make_receipt(f"r{number}", tokens=tokens), application=application))
        if stops:
            with ledger.database.read() as connection:
                more, last = tokens_of(connection, "a", last)
            total += more
    with ledger.database.read() as connection:
        more, _ = tokens_of(connection, "a", last)
        assert tokens_of(connection, "a")[0] == total + more
    ledger.close()
