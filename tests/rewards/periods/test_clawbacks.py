"""What a reversal takes back is what the response added, by the slow rules: any policy, caps, fees, applications."""

import copy
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rewards.credit import COMMONS
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.balances import Opening
from rewards.settlement.settle import find_clawbacks, settle
from tests.rewards.settlement.settlement_cases import APPLICATIONS, CLIENTS, cases, policies
from tests.rewards.settlement.settlement_oracle import gross_alone, new_purse, settle_slowly

RESPONSES = st.lists(
    st.tuples(
        st.sampled_from(APPLICATIONS),
        st.integers(1, 2_000_000),
        st.dictionaries(st.sampled_from([*CLIENTS, COMMONS]), st.integers(0, 10**7), min_size=1, max_size=3),
        st.integers(0, 3),  # in which later period it is reversed; 0: never
    ),
    min_size=1,
    max_size=7,
)


def credit_of(responses):
    """What responses come to."""
    by_application, tokens, credit = {}, Counter(), Counter()
    for application, generated, amounts, _ in responses:
        tokens[application] += generated
        credit.update(amounts)
        by_application.setdefault(application, Counter()).update(amounts)
    return PeriodCredit((0, 9), tokens.total(), dict(credit), by_application, dict(tokens))


@cases
@given(policies(), RESPONSES, RESPONSES)
def test_a_claw_back_is_what_the_responses_had_added(policy, first, responses):
    """Period after period: what all reversals so far had added by the oracle, less what was taken before."""
    before, credit = settle("p1", 1, credit_of(first), policy), credit_of(responses)
    purses = {policy.money: new_purse()}
    settle_slowly("p1", 1, credit_of(first), policy, purses, frozenset())
    opening = before.opening(policy)
    paid = settle("p2", 2, credit, policy, opening)
    gross = gross_alone("p2", credit, policy, copy.deepcopy(purses[policy.money]))
    taken = Counter()
    for later in (1, 2, 3):
        left = credit_of([each for each in responses if each[3] == 0 or each[3] > later])
        without = gross_alone("p2", left, policy, copy.deepcopy(purses[policy.money]))
        expected = {
            client: gross[client] - without.get(client, 0) - taken[client] for client in gross if client != COMMONS
        }
        found = find_clawbacks(paid, opening, left, taken)

        assert {client: amount for client, amount in expected.items() if amount > 0} == found
        taken.update(found)
    for line in paid.lines:
        assert line.account == COMMONS or 0 <= taken[line.account] <= line.gross


@cases
@given(policies(), RESPONSES)
def test_when_everything_is_reversed_everything_is_taken_back(policy, responses):
    """In whatever steps, the claw-backs of all responses of a period are what that period gave to clients."""
    paid = settle("p1", 1, credit_of(responses), policy)
    taken = Counter()
    for last in range(len(responses)):
        left = credit_of(responses[last + 1 :])
        taken.update(find_clawbacks(paid, Opening(), left, taken))

    assert {line.account: line.gross for line in paid.lines if line.account != COMMONS and line.gross} == +taken
