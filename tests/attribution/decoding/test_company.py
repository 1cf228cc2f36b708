"""Whoever comes and goes, with whatever settings and however small the parts: a row says what it says alone."""

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import Generation, Sampling, Step
from tests.attribution import consortia


@dataclass(frozen=True)
class Visit:
    """A row that joins at a step, and leaves when it has so many tokens, or at its end."""

    step: int
    prompt: str
    sampling: Sampling
    leaves_with: int


samplings = st.builds(
    Sampling,
    max_new_tokens=st.integers(1, 14),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.0]),
    top_p=st.sampled_from([1.0, 0.8]),
    seed=st.integers(0, 99),
    stop=st.sampled_from([(), ("e",), ("##",)]),
    top_k=st.sampled_from([0, 5]),
    min_p=st.sampled_from([0.0, 0.05]),
    frequency_penalty=st.sampled_from([0.0, 1.5]),
    presence_penalty=st.sampled_from([0.0, -1.0]),
    logit_bias=st.sampled_from([{}, {40: 4.0, 50: -100.0}]),
    top_logprobs=st.sampled_from([0, 3]),
)
visits = st.lists(
    st.builds(
        Visit, st.integers(0, 12), st.text("abc ", min_size=1, max_size=70), samplings, st.sampled_from([1, 5, 99])
    ),
    min_size=2,
    max_size=7,
)


@pytest.fixture(scope="module", params=consortia.FAMILIES)
def any_family(request, tmp_path_factory) -> FederatedModel:
    """A consortium of each family in turn."""
    return consortia.federated(tmp_path_factory.mktemp(request.param), request.param)


def _decoded(model: FederatedModel, part: int, row_visits: list[Visit]) -> list[tuple[Generation, list[Step]]]:
    """Each visit's response and its steps."""
    batch, at = Batch(model, part), 0
    generations: dict[int, Generation] = {}
    steps: dict[int, list[Step]] = {number: [] for number in range(len(row_visits))}
    while len(generations) < len(row_visits):
        for number, visit in enumerate(row_visits):
            if visit.step == at:
                batch.join(str(number), model.encode_text(visit.prompt), visit.sampling)
        for step in batch.step():
            number = int(step.key)
            steps[number].append(step)
            if step.finish_reason or len(steps[number]) == row_visits[number].leaves_with:
                generations[number] = batch.leave(step.key)
        at += 1
    return [(generations[number], steps[number]) for number in steps]


@given(visits, st.sampled_from([3, 20, 10**6]))
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_company_changes_nothing(any_family, row_visits, part):
    """Tokens and text are the same as alone, log-probabilities and captures within rounding."""
    for visit, (found, steps) in zip(row_visits, _decoded(any_family, part, row_visits), strict=True):
        visitor = Visit(0, visit.prompt, visit.sampling, visit.leaves_with)
        (alone, alone_steps) = _decoded(any_family, 10**6, [visitor])[0]
        assert (alone.token_ids, alone.text, alone.finish_reason) == (found.token_ids, found.text, found.finish_reason)
        assert pytest.approx(alone.logprobs, abs=1e-4) == found.logprobs
        for one, other in zip(alone_steps, steps, strict=True):
            assert [token for token, _ in one.top_logprobs] == [token for token, _ in other.top_logprobs]
        for name in ("tail_input", "block_input", "o_proj_input", "o_proj_output"):
            torch.testing.assert_close(getattr(alone, name), getattr(found, name), rtol=1e-3, atol=1e-4)
