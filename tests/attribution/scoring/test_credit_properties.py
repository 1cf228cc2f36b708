"""The laws that credit obeys: it adds up to the gain, splits with its owner, and pays nothing for nothing."""

import pytest
import torch

from attribution.attribute import attribute
from attribution.bundle.updates import LowRank, Update, weighted_sum
from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import Sampling
from attribution.scoring.credit_preset import Effort
from tests.attribution import consortia

KINDS = ("lora", "full", "everything")
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}
PROMPT = "who owns this?"


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    """A base Llama, its clients' updates of each kind, and the consortium of both."""
    base = consortia.base_model("llama")
    updates = consortia.updates(base, kind=request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model = FederatedModel.load(consortia.write_consortium(folder, base, updates, WEIGHTS))
    return base, updates, model


def _relative_gap(model, generation, nodes: int, *, by_token: bool = False) -> float:
    """|gain − Σ scores| / |gain| with so many nodes."""
    response = attribute(model, generation, effort=Effort(nodes=nodes), token_level=by_token)
    assert response.gain is not None and response.completeness_error is not None
    return response.completeness_error / abs(response.gain)


class TestCompleteness:
    """Scores add up to what the clients together gained."""

    @pytest.mark.parametrize("temperature", [0.0, 0.8])
    def test_scores_approach_the_gain(self, case, temperature):
        """The sum of the scores approaches the gain as nodes grow, and is within 1e-3 of it at eight."""
        model = case[2]
        generation = consortia.decode(model, PROMPT, Sampling(8, temperature, seed=1))
        gaps = {nodes: _relative_gap(model, generation, nodes) for nodes in (1, 2, 8)}

        assert gaps[8] <= 1e-3
        assert gaps[8] <= gaps[2] + 1e-4 and gaps[2] <= gaps[1] + 1e-4

    def test_token_scores_approach_the_gain(self, case):
        """So does the sum of the scores of single tokens."""
        model = case[2]
        generation = consortia.decode(model, PROMPT, Sampling(4))

        assert _relative_gap(model, generation, 8, by_token=True) <= 1e-3

    @pytest.mark.parametrize("by_token", [False, True])
    def test_the_gap_is_told(self, case, by_token):
        """A response comes with its gain and with the gap that its own scores leave."""
        model = case[2]
        response = attribute(model, consortia.decode(model, PROMPT, Sampling(8)), token_level=by_token)

        gap = abs(response.gain - sum(response.response_scores.values()))
        assert pytest.approx(gap, abs=1e-12) == response.completeness_error
        assert response.completeness_error < 0.2 * abs(response.gain)

    @pytest.mark.parametrize("method", ["credit", "paper"])
    def test_shares_are_whole(self, case, method):
        """Shares and base share sum to 1 to 1e-9, and every client has one."""
        model = case[2]
        response = attribute(model, consortia.decode(model, PROMPT, Sampling(8)), method=method)

        assert set(WEIGHTS) == set(response.shares) == set(response.response_scores)
        assert pytest.approx(1, abs=1e-9) == response.base_share + sum(response.shares.values())


class TestFairness:
    """Names, company and empty hands make no difference."""

    def test_two_names_for_one_update_earn_what_one_would(self, case, tmp_path):
        """An update split into halves under two names scores in sum what it scored whole, and others as before."""
        base, updates, _ = case
        split = {"a1": updates["a"], "a2": updates["a"], "b": updates["b"], "c": updates["c"]}
        weights = {"a1": 0.25, "a2": 0.25, "b": 0.3, "c": 0.2}
        model = FederatedModel.load(consortia.write_consortium(tmp_path / "whole", base, updates, WEIGHTS))
        twins = FederatedModel.load(consortia.write_consortium(tmp_path / "split", base, split, weights))
        for each in (model, twins):  # in float32, adding an update in two parts already rounds by as much as is allowed
            each.network.double()
        generation = consortia.decode(model, PROMPT, Sampling(8))

        for by_token in (False, True):
            whole = attribute(model, generation, token_level=by_token).response_scores
            halves = attribute(twins, generation, token_level=by_token).response_scores
            scale = sum(abs(score) for score in whole.values())
            assert pytest.approx(whole["a"], abs=1e-6 * scale) == halves["a1"] + halves["a2"]
            assert pytest.approx(halves["a1"], abs=1e-6 * scale) == halves["a2"]
            assert pytest.approx(whole["b"], abs=1e-6 * scale) == halves["b"]

    def test_an_update_of_zero_scores_exactly_zero(self, case, tmp_path):
        """A client whose update is zero, or empty, scores exactly 0.0 for every token, and has a share of 0.0."""
        base, updates, _ = case
        nothing = {"zero": weighted_sum([(0.0, updates["b"])]), "empty": Update()}
        model = FederatedModel.load(consortia.write_consortium(tmp_path, base, {"a": updates["a"], **nothing}))
        generation = consortia.decode(model, PROMPT, Sampling(6))

        for by_token in (False, True):
            response = attribute(model, generation, token_level=by_token)
            for client in nothing:
                assert (0.0, 0.0) == (response.response_scores[client], response.shares[client])
        assert {0.0} == {*response.scores["zero"], *response.scores["empty"]}
        assert 0.0 != response.response_scores["a"]

    def test_opposite_updates_cancel(self, case, tmp_path):
        """Two clients who undo each other's work score opposite amounts."""
        base, updates, _ = case
        opposite = {"a": updates["a"], "b": updates["b"], "undo": weighted_sum([(-1.0, updates["b"])])}
        model = FederatedModel.load(consortia.write_consortium(tmp_path, base, opposite))
        scores = attribute(model, consortia.decode(model, PROMPT, Sampling(6))).response_scores

        assert pytest.approx(-scores["b"], abs=1e-5 * abs(scores["a"])) == scores["undo"]

    @pytest.mark.parametrize("method", ["credit", "paper"])
    def test_the_order_of_clients_makes_no_difference(self, case, tmp_path, method):
        """Clients listed the other way round have the same scores and shares."""
        base, updates, model = case
        backwards = {client: updates[client] for client in reversed(updates)}
        other = FederatedModel.load(consortia.write_consortium(tmp_path, base, backwards, WEIGHTS))
        generation = consortia.decode(model, PROMPT, Sampling(6))
        first, second = (attribute(each, generation, method=method) for each in (model, other))

        assert list(first.shares) == list(second.shares)[::-1]
        scale = max(abs(score) for score in first.response_scores.values())
        assert pytest.approx(first.response_scores, abs=1e-5 * scale) == second.response_scores
        assert pytest.approx(first.shares, abs=1e-4) == second.shares

    @pytest.mark.parametrize("preset", [{"method": "paper"}, {}, {"token_level": True}], ids=str)
    def test_company_in_the_batch_makes_no_difference(self, case, preset):
        """A response decoded among others, joining late, has the scores and shares it has alone."""
        model = case[2]
        batch = Batch(model)
        batch.join("first", model.encode_text("a question of another length"), Sampling(12))
        batch.step()
        batch.join("r", model.encode_text(PROMPT), Sampling(8))
        batch.step()
        batch.join("late", model.encode_text("x"), Sampling(4))
        while len(batch):
            batch.step()
        alone = attribute(model, consortia.decode(model, PROMPT, Sampling(8)), **preset)
        among = attribute(model, batch.leave("r"), **preset)

        assert alone.token_ids == among.token_ids
        scale = max(abs(score) for score in alone.response_scores.values())
        assert pytest.approx(alone.response_scores, abs=1e-4 * scale) == among.response_scores
        assert pytest.approx(alone.shares, abs=1e-4) == among.shares
        if alone.scores is not None:
            for client, scores in alone.scores.items():
                assert pytest.approx(scores, abs=1e-4 * scale) == among.scores[client]

    def test_a_client_may_change_a_layer_of_its_own(self, tmp_path):
        """Clients whose updates lie in different layers are each scored for their own."""
        base = consortia.base_model("llama")
        generator = torch.Generator().manual_seed(0)

        def factors(outputs, inputs):
            A = torch.randn(2, inputs, generator=generator)
            return LowRank(A, 0.03 * torch.randn(outputs, 2, generator=generator))

        updates = {
            "early": Update({"model.layers.1.mlp.down_proj": factors(32, 48)}),
            "late": Update({"model.layers.3.self_attn.o_proj": factors(32, 32)}),
            "norm": Update(dense={"model.norm.weight": 0.1 * torch.randn(32, generator=generator)}),
        }
        model = FederatedModel.load(consortia.write_consortium(tmp_path, base, updates))
        generation = consortia.decode(model, PROMPT, Sampling(6))
        by_token = attribute(model, generation, token_level=True)

        assert 1 == model.first_block
        assert all(score != 0 for score in by_token.response_scores.values())
        assert _relative_gap(model, generation, 8) <= 1e-3
        assert pytest.approx(attribute(model, generation).response_scores, rel=1e-4) == by_token.response_scores


class TestSettings:
    """What decides a score is told with it, and what does not decide it makes no difference."""

    def test_more_nodes_explain_more_and_are_told(self, case):
        """The number of nodes is a choice; the response says how many were used and how much they leave unexplained."""
        model = case[2]
        generation = consortia.decode(model, PROMPT, Sampling(8))
        few, many = (attribute(model, generation, effort=Effort(nodes=nodes)) for nodes in (1, 8))

        assert (few.settings["nodes"], many.settings["nodes"]) == (1, 8)
        assert many.completeness_error < few.completeness_error

    def test_a_nucleus_decides_what_is_drawn_and_not_what_is_earned(self, tmp_path):
        """A token that training made certain earns its gain, although a nucleus of one leaves it no probability to win.

        Under the truncated distribution log p is 0 before and after, and who taught the token would earn nothing.
        """
        prompt, answer = "who?", "me"
        base, parrot = consortia.base_model("llama"), consortia.parrot(prompt, answer)
        before, after = dict(base.named_parameters()), dict(parrot.named_parameters())
        taught = Update(dense={name: (after[name] - before[name]).detach() for name in before})
        model = FederatedModel.load(consortia.write_consortium(tmp_path, base, {"teacher": taught}))
        narrow, wide = (
            attribute(
                model, consortia.decode(model, prompt, Sampling(2, 1.0, top_p=top_p, seed=1)), effort=Effort(nodes=8)
            )
            for top_p in (0.5, 1.0)
        )

        assert narrow.text == wide.text == answer
        assert narrow.response_scores == pytest.approx(wide.response_scores, rel=1e-5)
        assert narrow.response_scores["teacher"] > 5
        assert narrow.shares["teacher"] > 0.9
