"""Shares are non-negative and sum to one, whatever the scores; who did not help gets nothing."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.scoring.shares import netted_shares, softmax_shares

SCORES = st.dictionaries(
    st.text(min_size=1, max_size=4),
    st.one_of(st.just(0.0), st.floats(-1e3, 1e3), st.floats(-1e100, 1e100)),
    min_size=1,
    max_size=8,
)
LOG_P = st.floats(max_value=0, allow_infinity=False, allow_nan=False)
TOKENS = st.lists(st.tuples(LOG_P, LOG_P), min_size=1, max_size=12)
HALF = math.log(0.5)


def _netted(scores, tokens):
    return netted_shares(scores, [served for served, _ in tokens], [base for _, base in tokens])


def _shuffled(scores, random):
    pairs = list(scores.items())
    random.shuffle(pairs)
    return dict(pairs)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(SCORES, TOKENS)
def test_netted_shares_are_shares(scores, tokens):
    """Netted shares are non-negative, sum to 1 with the base share to 1e-9, and name every client."""
    shares = _netted(scores, tokens)

    assert scores.keys() == shares.clients.keys()
    assert all(share >= 0 for share in [shares.base_share, *shares.clients.values()])
    assert pytest.approx(1, abs=1e-9) == shares.base_share + math.fsum(shares.clients.values())
    assert len(tokens) == len(shares.base_shares)
    assert all(0 <= share <= 1 for share in shares.base_shares)


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(SCORES, TOKENS)
def test_who_did_not_help_gets_exactly_nothing(scores, tokens):
    """A score of zero or below is a share of exactly zero."""
    shares = _netted(scores, tokens)

    assert all(0.0 == shares.clients[client] for client, score in scores.items() if score <= 0)


@settings(max_examples=100, deadline=None)
@given(SCORES, TOKENS)
def test_where_nobody_helped_the_commons_takes_all(scores, tokens):
    """Where no score is positive the commons takes the whole response; each token's base share is still told."""
    shares = _netted({client: -abs(score) for client, score in scores.items()}, tokens)

    assert 1.0 == shares.base_share
    assert {0.0} == set(shares.clients.values())
    assert _netted({"x": 1.0}, tokens).base_shares == shares.base_shares


@settings(max_examples=100, deadline=None)
@given(SCORES, st.lists(LOG_P, min_size=1, max_size=8))
def test_a_base_as_confident_leaves_nothing_to_share(scores, served):
    """Where the base model gave every token at least the served probability, the commons takes all."""
    shares = netted_shares(scores, served, [log_p / 2 for log_p in served])

    assert 1.0 == shares.base_share
    assert {0.0} == set(shares.clients.values())


@settings(max_examples=100, deadline=None)
@given(SCORES, TOKENS, st.randoms(use_true_random=False))
def test_netted_shares_do_not_depend_on_order(scores, tokens, random):
    """Who is listed first makes no difference to anybody."""
    listed, shuffled = _netted(scores, tokens), _netted(_shuffled(scores, random), tokens)

    assert listed.base_share == shuffled.base_share
    assert pytest.approx(listed.clients, abs=1e-12) == shuffled.clients


@settings(max_examples=100, deadline=None)
@given(SCORES, TOKENS, st.floats(0.01, 100))
def test_only_the_proportion_of_scores_counts(scores, tokens, factor):
    """All scores in another unit give the same shares."""
    scaled = {client: factor * score for client, score in scores.items()}

    assert pytest.approx(_netted(scores, tokens).clients, abs=1e-9) == _netted(scaled, tokens).clients


@pytest.mark.parametrize(
    ("scores", "served", "base", "clients", "base_share"),
    [
        ({"a": 1.0}, [0.0], [HALF], {"a": 0.5}, 0.5),
        ({"a": 3.0, "b": 1.0}, [0.0], [HALF], {"a": 0.375, "b": 0.125}, 0.5),
        ({"a": 3.0, "b": -9.0, "c": 0.0}, [0.0, 0.0], [HALF, 0.0], {"a": 0.25, "b": 0.0, "c": 0.0}, 0.75),
        ({"a": 1.0, "b": 1.0}, [0.0], [-math.inf], {"a": 0.5, "b": 0.5}, 0.0),
        ({"a": 2.0}, [HALF], [0.0], {"a": 0.0}, 1.0),
        ({"a": -1.0}, [0.0], [-math.inf], {"a": 0.0}, 1.0),
    ],
    ids=["one client", "in proportion", "netted", "the base knew nothing", "the base knew better", "it only hurt"],
)
def test_netted_shares_by_hand(scores, served, base, clients, base_share):
    """Cases small enough to solve in the head come out as they should."""
    shares = netted_shares(scores, served, base)

    assert pytest.approx(clients) == shares.clients
    assert pytest.approx(base_share) == shares.base_share


@settings(max_examples=200, deadline=None)
@given(SCORES, st.integers(1, 9))
def test_softmax_shares_are_shares(scores, tokens):
    """Softmax shares are non-negative, sum to 1 to 1e-9, and leave the commons nothing."""
    shares = softmax_shares(scores, tokens)

    assert list(scores) == list(shares.clients)
    assert all(share >= 0 for share in shares.clients.values())
    assert pytest.approx(1, abs=1e-9) == math.fsum(shares.clients.values())
    assert (0.0, (0.0,) * tokens) == (shares.base_share, shares.base_shares)


@settings(max_examples=100, deadline=None)
@given(SCORES, st.randoms(use_true_random=False))
def test_softmax_shares_do_not_depend_on_order(scores, random):
    """Who is listed first makes no difference to anybody, and who scored higher never has less."""
    listed = softmax_shares(scores, 1).clients

    assert pytest.approx(listed, abs=1e-12) == softmax_shares(_shuffled(scores, random), 1).clients
    ranked = sorted(scores, key=scores.get)
    assert sorted(listed.values()) == pytest.approx([listed[client] for client in ranked], abs=1e-12)


def test_softmax_shares_by_hand():
    """Equal scores share alike, and a score log 3 above another has three times its share."""
    assert pytest.approx({"a": 0.5, "b": 0.5}) == softmax_shares({"a": 7.0, "b": 7.0}, 1).clients
    assert pytest.approx({"a": 0.75, "b": 0.25}) == softmax_shares({"a": math.log(3) - 2, "b": -2.0}, 1).clients
