"""The audit's own settlement and the one that pays agree on every chain of periods, to the last digit of the document.

Two programs were written from one rule in words. What they share is neither code nor method; where one of them were
wrong, random chains would tell them apart.
"""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.audit.settlement.document import Circumstances, gains_without
from rewards.audit.settlement.document import settle as settle_again
from rewards.audit.settlement.settle import Earnings
from rewards.audit.settlement.terms import Terms
from rewards.settlement.balances import Opening
from rewards.settlement.document import FIRST_RULE, RULE
from rewards.settlement.policy import Policy
from rewards.settlement.settle import find_clawbacks, settle
from tests.rewards.settlement.settlement_cases import CHAINS, cases, policies, windows

CHAINS_OF_POLICIES = st.lists(st.tuples(windows(), policies()), min_size=1, max_size=5)


def earned(credit):
    """What the audit counts of the same credit."""
    by_application = {
        (application, account): amount
        for application, amounts in (credit.by_application or {}).items()
        for account, amount in amounts.items()
    }
    mentioned = frozenset(credit.credit)
    return Earnings(credit.tokens_by_application or {}, by_application, credit.late, credit.held, mentioned)


def both(chain, rule):
    """Each period of a chain settled twice: by who pays, and by the audit."""
    paid = again = None
    for ordinal, (window, policy) in enumerate(chain, 1):
        standing = {each: amounts for each, amounts in window.credit.standing_clawbacks.items() if each != policy.money}
        credit = replace(window.credit, standing_clawbacks=standing if rule == RULE else {})
        opening = paid.opening(policy, rule) if paid else Opening()
        paid = settle(f"p{ordinal}", ordinal, credit, policy, opening, window.held_clients, rule)
        clawbacks = {tuple(each): amounts for each, amounts in credit.standing_clawbacks.items()}
        around = Circumstances(
            credit.window, again, window.held_clients, {**clawbacks, tuple(policy.money): credit.clawbacks}
        )
        stored = json.loads(json.dumps(paid.to_document()["policy"]))
        again = settle_again(f"p{ordinal}", stored, earned(credit), around, rule)
        yield paid, again, credit, opening


@cases
@given(CHAINS_OF_POLICIES)
def test_both_settle_every_chain_alike(chain):
    """Currencies, caps, fees, holds, holdbacks, debts, claw-backs: the two documents have the same bytes."""
    for paid, again, _, _ in both(chain, RULE):
        assert paid.to_document() == again.document
        assert paid.sha256 == again.sha256


@cases
@given(CHAINS, policies())
def test_both_settle_by_the_first_rule_alike(chain, policy):
    """Periods of before are audited by the rule of then."""
    for paid, again, _, _ in both([(window, policy) for window in chain], FIRST_RULE):
        assert paid.to_document() == again.document


@cases
@given(CHAINS_OF_POLICIES, windows())
def test_both_take_back_alike(chain, other):
    """What a period gave because of some responses is the same to both, whatever is taken out of it."""
    for paid, again, credit, opening in both(chain, RULE):
        without = replace(other.credit, window=credit.window)
        had, would = again.gains(), gains_without(again, earned(without))
        found = {client: had[client] - would.get(client, 0) for client in had if client != "commons"}

        assert find_clawbacks(paid, opening, without, {}) == {
            client: each for client, each in found.items() if each > 0
        }


SHARED = {
    *("errors", "files", "files.private_files"),
    *("signing", "signing.encoding", "signing.keys", "signing.notes"),
    *("store", "store.database", "store.engines", "store.presence", "store.schema", "store.tables", "store.url"),
}
"""What rewards/README.md says that the audit shares with who writes: the tables, the connection, and signatures."""


def test_the_audit_shares_no_rule_with_who_writes():
    """Importing the audit loads nothing of this package but itself, the database, its tables, and signatures."""
    program = (
        "import sys, types; rewards = sys.modules['rewards'] = types.ModuleType('rewards'); "
        "rewards.__path__ = ['rewards']; import rewards.audit.replay; "  # without all that `rewards` offers to others
        "print(*sorted(name for name in sys.modules if name.startswith('rewards.')))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    names = {name.removeprefix("rewards.") for name in loaded.stdout.split()}
    own = {name for name in names if name.split(".")[0] == "audit"}
    assert {"audit.settlement.settle", "audit.settlement.replay", "audit.settlement.counting", "audit.hashing"} <= own
    assert SHARED == names - own


STORED = Policy(pool=1001, currency="EUR", holdback_percent=10).model_dump(exclude_none=True)


@pytest.mark.parametrize(
    "change",
    [
        {"pool": -1},
        {"pool": 1.5},
        {"pool": True},
        {"pool": 2**53},
        {"fee_percent": "101"},
        {"fee_percent": "-1"},
        {"holdback_percent": "0.0000001"},
        {"cap_percent": 0.5},
        {"commons": "keep"},
        {"allocation": "user_centric"},
        {"price_per_million_tokens": 1},
        {"bonus": 1},
        {"caps": {"bank": "200"}},
        {"minimum_payout": "5"},
    ],
    ids=str,
)
def test_no_policy_passes_that_no_policy_may_say(change):
    """Whoever writes past the ledger cannot settle by amounts and words that policies do not have."""
    Terms.of(STORED)
    with pytest.raises(ValueError, match="polic"):
        Terms.of({**STORED, **change})
