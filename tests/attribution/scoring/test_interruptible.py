"""Scoring in pieces: whatever happens between two of them, the scores and the decoder's tokens are the same."""

import pytest
import torch

from attribution.attribute import attribute, credit_in_pieces
from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import Sampling
from attribution.scoring import slopes
from attribution.scoring.credit_preset import Effort
from attribution.scoring.quadrature import NESTED_RULES
from attribution.scoring.saved_bytes import SavedBytes
from tests.attribution import consortia

WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}
EFFORT = Effort(nodes=2)


@pytest.fixture(scope="module", params=[*((family, "lora") for family in consortia.FAMILIES), ("llama", "everything")])
def model(request, tmp_path_factory):
    """A consortium of each family, and one in which everything was changed."""
    family, kind = request.param
    base = consortia.base_model(family)
    folder = tmp_path_factory.mktemp(f"{family}-{kind}")
    return FederatedModel.load(consortia.write_consortium(folder, base, consortia.updates(base, kind=kind), WEIGHTS))


def decoded(model, between=lambda: None):
    """Three responses that are decoded together, while something else happens between the steps."""
    batch = Batch(model)
    for key in ("who", "what is this?", "why"):
        batch.join(key, model.encode_text(key), Sampling(12))
    while len(batch):
        batch.step()
        between()
    return [batch.leave(key) for key in ("who", "what is this?", "why")]


@pytest.mark.parametrize("token_level", [False, True])
def test_a_decoder_runs_between_the_pieces_of_a_score(model, token_level):
    """A step after every piece: neither notices the other."""
    generations = decoded(model)
    expected = attribute(model, generations[0], token_level=token_level, effort=EFFORT)
    work = credit_in_pieces(model, generations[0], token_level=token_level, effort=EFFORT)
    ended = []

    def go_on():
        for _ in range(3):
            try:
                if not ended:
                    next(work)
            except StopIteration as end:
                ended.append(end.value)

    again = decoded(model, between=go_on)
    while not ended:
        go_on()

    assert [each.token_ids for each in generations] == [each.token_ids for each in again]
    assert [each.logprobs for each in generations] == [each.logprobs for each in again]
    assert expected == ended[0]


@pytest.mark.parametrize("token_level", [False, True])
def test_ids_alone_score_as_what_was_captured(model, token_level):
    """What the decoder kept of the blocks that nobody changed saves work, and changes nothing."""
    generation = decoded(model)[1]
    bare = type(generation)(**{**vars(generation), "tail_input": None})
    captured, alone = (attribute(model, each, token_level=token_level, effort=EFFORT) for each in (generation, bare))
    for client, score in captured.response_scores.items():
        assert alone.response_scores[client] == pytest.approx(score, rel=1e-4, abs=1e-6)


def test_a_pass_that_would_keep_too_much_runs_its_blocks_again(model, monkeypatch):
    """The scores are the same, and no block but the first, by which it is planned, keeps more than what entered it.

    A pass is planned well: all of its blocks together keep what each of the first two, times their number, says.
    """
    totals = _totals(monkeypatch)
    generation = decoded(model)[2]
    plenty = attribute(model, generation, effort=EFFORT)
    by_pass = [totals[at : at + len(totals) // 2] for at in (0, len(totals) // 2)]
    for blocks in by_pass:
        planned = len(blocks) * max(each.total for each in blocks[:2])
        assert 0 < sum(each.total for each in blocks) <= 1.05 * planned
    totals.clear()
    scarce = attribute(model, generation, effort=Effort(nodes=2, memory_bytes=1))

    assert {0} == {each.total for each in totals[1 : len(totals) // 2]}
    for client, score in plenty.response_scores.items():
        assert scarce.response_scores[client] == pytest.approx(score, rel=1e-5, abs=1e-7)


def _totals(monkeypatch):
    """What each block of a forward pass keeps, one after the other."""
    totals: list[SavedBytes] = []
    counting = slopes.count_saved

    class Noting:
        def __init__(self, module):
            self._context = counting(module)

        def __enter__(self):
            totals.append(self._context.__enter__())
            return totals[-1]

        def __exit__(self, *error):
            return self._context.__exit__(*error)

    monkeypatch.setattr(slopes, "count_saved", Noting)
    return totals


def test_nodes_are_added_until_the_gap_is_small_enough(model):
    """A strict tolerance takes more of them than a loose one, and is met or has taken all."""
    generation = decoded(model)[0]
    loose = attribute(model, generation, effort=Effort(tolerance=1.0))
    strict = attribute(model, generation, effort=Effort(tolerance=1e-6))

    assert 3 == loose.settings["nodes"] <= strict.settings["nodes"] <= 15
    assert strict.completeness_error <= loose.completeness_error + 1e-5
    assert strict.settings["nodes"] == 15 or strict.completeness_error <= 1e-6 * max(abs(strict.gain), 0.01 * 12)


@pytest.mark.parametrize(("rule", "degree"), list(zip(NESTED_RULES, (5, 11, 23), strict=True)))
def test_a_rule_is_exact_up_to_its_degree(rule, degree):
    """∫ x^k over [0, 1] is 1 / (k + 1); each rule has the points of the one before it."""
    points, weights = (torch.tensor(each, dtype=torch.float64) for each in (rule.points, rule.weights))
    for power in range(degree + 1):
        assert float((weights * points**power).sum()) == pytest.approx(1 / (power + 1), abs=1e-14)
    before = [each for each in NESTED_RULES if len(each.points) < len(rule.points)]
    assert all(set(each.points) <= set(rule.points) for each in before)
