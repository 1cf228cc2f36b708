"""Prompts are run in parts between the steps of others: the same tokens, and nobody waits for a whole prompt."""

import pytest
import torch

from attribution.base.tokenizer import longest_token_bytes
from attribution.decoding.decode import Batch
from attribution.errors import ContextLengthError
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.attribution import consortia

LONG = "a long prompt of one hundred and one letters, which no window that slides can hold, nor one part of it"


@pytest.fixture(scope="module", params=consortia.FAMILIES)
def any_family(request, tmp_path_factory) -> FederatedModel:
    """A consortium of each family in turn."""
    return consortia.federated(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> FederatedModel:
    """A consortium over a random Llama."""
    return consortia.federated(tmp_path_factory.mktemp("llama"))


def _run(batch: Batch) -> list[list[str]]:
    """The keys of each step to the end."""
    steps = []
    while len(batch):
        steps.append([step.key for step in batch.step()])
    return steps


@pytest.mark.parametrize("part", [1, 7, 64])
@pytest.mark.parametrize("sampling", [Sampling(12), Sampling(12, temperature=1.0, seed=3)], ids=["greedy", "sampled"])
def test_a_prompt_in_parts_is_as_a_whole_one(any_family, part, sampling):
    """Tokens are equal, and log-probabilities and captured tensors within rounding, however small the parts."""
    whole = Batch(any_family, 10**6)
    parts = Batch(any_family, part)
    found = []
    for batch in (whole, parts):
        batch.join("short", any_family.encode_text("b"), Sampling(14))
        batch.step()
        batch.join("long", any_family.encode_text(LONG), sampling)
        _run(batch)
        found.append((batch.leave("long"), batch.leave("short")))

    for expected, got in zip(*found, strict=True):
        assert (expected.token_ids, expected.text) == (got.token_ids, got.text)
        assert pytest.approx(expected.logprobs, abs=1e-4) == got.logprobs
        for name in ("tail_input", "block_input", "o_proj_input", "o_proj_output"):
            torch.testing.assert_close(getattr(expected, name), getattr(got, name), rtol=1e-4, atol=1e-4)


def test_other_rows_step_between_the_parts_of_a_prompt(llama):
    """A prompt of 102 tokens in parts of 20 lets a row that runs have a token at each part, and then joins."""
    batch = Batch(llama, 20)
    batch.join("runs", llama.encode_text("b"), Sampling(12))
    batch.step()
    batch.join("long", llama.encode_text(LONG), Sampling(2))

    assert 102 == len(LONG)
    assert [["runs"]] * 5 + [["runs", "long"]] * 2 == _run(batch)[:7]


def test_a_short_prompt_waits_for_no_long_one_and_the_oldest_is_not_starved(llama):
    """What comes last and is short has its token first; the oldest has half of every step."""
    batch = Batch(llama, 20)
    batch.join("runs", llama.encode_text("b"), Sampling(40))
    batch.step()
    for name in ("long", "longer"):
        batch.join(name, llama.encode_text(LONG), Sampling(2))
    batch.step()
    batch.join("short", llama.encode_text("so"), Sampling(2))
    steps = _run(batch)

    assert "short" in steps[0]
    assert 9 == next(at for at, keys in enumerate(steps) if "long" in keys)


def test_a_row_may_leave_in_the_middle_of_its_prompt(llama):
    """It has nothing then, and the others notice nothing."""
    batch = Batch(llama, 20)
    batch.join("runs", llama.encode_text("b"), Sampling(8))
    batch.step()
    batch.join("long", llama.encode_text(LONG), Sampling(2))
    batch.step()
    found = batch.leave("long")
    _run(batch)

    assert ((), 0) == (found.token_ids, len(found.block_input))
    assert consortia.decode(llama, "b", Sampling(8)).token_ids == batch.leave("runs").token_ids


def test_what_was_not_asked_for_is_raised(llama, monkeypatch):
    """Whoever asks nobody which rows fell is told by the row that leaves."""
    batch = Batch(llama)
    batch.join("r", llama.encode_text("b"), Sampling(8))
    monkeypatch.setattr(llama.network.model, "forward", lambda *_, **__: {}["missing"])
    assert [] == batch.step()
    assert 0 == len(batch)
    with pytest.raises(KeyError, match="missing"):
        batch.leave("r")


def test_a_text_that_cannot_fit_is_refused_without_being_tokenised(llama, monkeypatch):
    """The longest token is `<pad>`, five bytes: 640 bytes may fit a context of 128 tokens, and 641 cannot."""
    assert 5 == longest_token_bytes(llama.backend_tokenizer)
    assert 640 == len(llama.encode_text("é" * 320))
    assert 128 == len(llama.encode_text("<pad>" * 128))
    monkeypatch.setattr(llama, "tokenizer", None)
    with pytest.raises(ContextLengthError, match="641 bytes"):
        llama.encode_text("é" * 320 + "x")


@pytest.mark.parametrize(
    "change",
    [
        lambda backend: setattr(backend, "normalizer", __import__("tokenizers").normalizers.Strip()),
        lambda backend: setattr(backend, "pre_tokenizer", __import__("tokenizers").pre_tokenizers.Whitespace()),
        lambda backend: backend.add_tokens([__import__("tokenizers").AddedToken("<w>", lstrip=True)]),
    ],
)
def test_where_a_token_may_swallow_any_text_there_is_no_bound(change):
    """A tokenizer that drops or joins text is asked, whatever the length of the text."""
    backend = consortia.tokenizer().backend_tokenizer
    change(backend)

    assert longest_token_bytes(backend) is None
