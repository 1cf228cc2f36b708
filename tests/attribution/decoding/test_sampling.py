"""Tokens are drawn as often as transformers' own distribution says, for all rows at once, each as if it were alone."""

import math
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from attribution.decoding import sampling as module
from attribution.decoding.row import Row
from attribution.decoding.sampling import Choice, Draw, choose_tokens
from attribution.records import Sampling
from tests.attribution import consortia

VOCABULARY = 60
GRID = 3000
SETTINGS: list[dict[str, Any]] = [
    {},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 1000},
    {"top_p": 0.1},
    {"top_p": 0.8},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 9, "top_p": 0.7},
    {"top_k": 20, "top_p": 0.9, "min_p": 0.2},
]
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 100]),
    min_p=st.sampled_from([0.0, 0.1]),
    logit_bias=st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100, width=32), max_size=3),
    top_logprobs=st.integers(0, 20),
)
draws = st.builds(lambda asked, uniform: Draw(asked, uniform, asked.logit_bias), samplings, st.floats(0, 1 - 2**-53))


class Operations(TorchDispatchMode):
    """Names of all that torch did within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def _logits(rows: int, seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return 2 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def _draw(uniform: float = 0.5, **asked: Any) -> Draw:
    return Draw(Sampling(**asked), uniform, asked.get("logit_bias", {}))


def _literal(logits: torch.Tensor, asked: Sampling) -> torch.Tensor:
    """The probabilities of one row by transformers' own processors, in the order in which it applies them."""
    scores = TemperatureLogitsWarper(asked.temperature)(None, logits.double().unsqueeze(0))
    if asked.top_k:
        scores = TopKLogitsWarper(asked.top_k)(None, scores)
    if asked.top_p < 1:
        scores = TopPLogitsWarper(asked.top_p)(None, scores)
    if asked.min_p:
        scores = MinPLogitsWarper(asked.min_p)(None, scores)
    return scores.softmax(-1)[0]


@pytest.mark.parametrize("candidates", [4, 1024], ids=["few candidates", "all candidates"])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("cut", SETTINGS, ids=str)
def test_each_token_is_drawn_as_often_as_it_is_likely(monkeypatch, cut, temperature, candidates):
    """Over numbers that lie evenly from 0 to 1, the shares of the tokens are the probabilities of transformers."""
    monkeypatch.setattr(module, "CANDIDATES", candidates)
    logits, asked = _logits(1), Sampling(temperature=temperature, **cut)
    chosen = choose_tokens(logits.expand(GRID, -1), [Draw(asked, (n + 0.5) / GRID, {}) for n in range(GRID)])
    drawn = Counter(choice.token for choice in chosen)
    log_p = (logits[0] / temperature).log_softmax(-1)

    for token, expected in enumerate(_literal(logits[0], asked).tolist()):
        assert abs(expected - drawn[token] / GRID) <= 1.01 / GRID
        assert expected > 0 or not drawn[token]
    for choice in chosen[:: GRID // 7]:
        assert pytest.approx(float(log_p[choice.token]), abs=1e-5) == choice.logprob


@given(st.lists(draws, min_size=1, max_size=9), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_row_draws_as_if_it_were_alone(row_draws, seed):
    """Whatever the others ask, a row's choice is the one it makes by itself."""
    logits = _logits(len(row_draws), seed)
    alone = [choose_tokens(logits[row : row + 1], [draw])[0] for row, draw in enumerate(row_draws)]
    together = choose_tokens(logits, row_draws)

    assert [choice.token for choice in alone] == [choice.token for choice in together]
    for one, other in zip(alone, together, strict=True):
        assert pytest.approx(one.logprob, abs=1e-5) == other.logprob
        assert [token for token, _ in one.top_logprobs] == [token for token, _ in other.top_logprobs]


def test_greedy_is_the_likeliest_after_bias_and_scored_without_it():
    """A bias moves the choice, also the greedy one; the log-probability stays the model's own."""
    logits = _logits(3)
    log_p = logits.log_softmax(-1)
    last = int(logits[0].argmin())
    greedy, moved, banned = choose_tokens(
        logits[:1].expand(3, -1),
        [_draw(), _draw(logit_bias={last: 100.0}), _draw(logit_bias={int(logits[0].argmax()): -100.0})],
    )

    assert (int(logits[0].argmax()), last) == (greedy.token, moved.token)
    assert int(logits[0].topk(2).indices[1]) == banned.token
    for choice in (greedy, moved, banned):
        assert pytest.approx(float(log_p[0, choice.token]), abs=1e-5) == choice.logprob


def test_penalties_are_those_of_openai():
    """For each time that a token was said its logit falls by the frequency's, and once by the presence's penalty."""
    asked = Sampling(frequency_penalty=0.5, presence_penalty=0.25, logit_bias={7: 3.0, 9: -1.0}, max_new_tokens=9)
    row = Row("r", [5, 6, 7], asked, consortia.tokenizer().backend_tokenizer)
    for token in (7, 8, 7, 7):
        row.emit(Choice(token, -1.0), set())

    assert {7: 3.0 - 0.5 * 3 - 0.25, 8: -0.5 - 0.25, 9: -1.0} == row.draw.adjustments
    assert {7: 3.0, 9: -1.0} == asked.logit_bias


def test_the_likeliest_tokens_are_told():
    """As many as asked, likeliest first, of the model's own distribution at the temperature."""
    logits = _logits(3)
    log_p = (logits / 2).log_softmax(-1)
    told = choose_tokens(
        logits,
        [
            _draw(temperature=2.0, top_logprobs=3, logit_bias={0: 100.0}),
            _draw(temperature=2.0),
            _draw(temperature=2.0, top_logprobs=20, top_k=1),
        ],
    )

    assert [3, 0, 20] == [len(choice.top_logprobs) for choice in told]
    for row, choice in enumerate(told):
        expected = log_p[row].topk(len(choice.top_logprobs))
        assert expected.indices.tolist() == [token for token, _ in choice.top_logprobs]
        assert pytest.approx(expected.values.tolist(), abs=1e-5) == [logprob for _, logprob in choice.top_logprobs]


@pytest.mark.parametrize("broken", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("asked", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.5}], ids=str)
def test_logits_that_are_no_numbers_are_one_row_s(broken, asked):
    """The row's own log-probability is not finite; the others choose as ever."""
    logits = _logits(3)
    before = choose_tokens(logits, [_draw(**asked)] * 3)
    logits[1, 5] = broken
    after = choose_tokens(logits, [_draw(**asked)] * 3)

    assert not math.isfinite(after[1].logprob)
    assert [before[0], before[2]] == [after[0], after[2]]


@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("kinds", [[0], [1], [2], [0, 1, 2, 3]], ids=["greedy", "whole", "cut", "all"])
def test_the_host_waits_twice_at_most(monkeypatch, rows, kinds):
    """At any number of rows; and where nobody's vocabulary is cut, once, and nothing is sorted."""
    asked = [
        Sampling(top_logprobs=2),
        Sampling(temperature=0.7),
        Sampling(temperature=1.0, top_p=0.9999),
        Sampling(temperature=1.0, top_k=4, frequency_penalty=1.0, logit_bias={3: 1.0}),
    ]
    some = [asked[kinds[row % len(kinds)]] for row in range(rows)]
    waits = []
    for name in ("tolist", "item", "__bool__", "__int__", "__float__", "numpy", "cpu", "nonzero"):
        original = getattr(torch.Tensor, name)

        def waiting(tensor, *arguments, name=name, original=original):
            waits.append(name)
            return original(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, waiting)
    with Operations() as seen:
        choose_tokens(_logits(rows, vocabulary=5000), [Draw(each, 0.5, each.logit_bias) for each in some])
    hidden = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item"} & set(seen.names)

    assert set() == hidden
    assert 1 <= len(waits) <= (2 if asked[2] in some else 1)
    assert (asked[2] in some) == ("sort" in seen.names)


def test_a_seed_is_a_row_s_own():
    """Two rows of one seed draw the same numbers, another seed others, and the negative of a seed too."""
    backend = consortia.tokenizer().backend_tokenizer
    rows = [Row("r", [5], Sampling(temperature=1.0, seed=seed), backend) for seed in (3, 3, 4, -3, -(2**63))]
    numbers = [row.draw.uniform for row in rows]
    rows[0].emit(Choice(9, -1.0), set())

    assert numbers[0] == numbers[1]
    assert 4 == len(set(numbers))
    assert rows[0].draw.uniform != numbers[0]
