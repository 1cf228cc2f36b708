"""The slow oracle: exact Shapley values, coalition games and forced responses, against a reference written apart."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from attribution.attribute import attribute
from attribution.base.references import load_model
from attribution.errors import BundleError, PromptError
from attribution.evaluation.ground_truth import (
    ReconstructedGame,
    RetrainedGame,
    ScoredResponse,
    exact_shapley,
    leave_one_out,
    log_probability,
)
from attribution.evaluation.shapley import linear_datamodelling_score, shapley_values
from attribution.model import FederatedModel
from attribution.progress import NoProgress
from attribution.records import Sampling
from attribution.scoring.credit_preset import Effort
from attribution.teacher_forcing import forced_generation
from attribution.training.federate import build_bundle
from attribution.training.recipe import ClientRecipe, Recipe
from tests.attribution import consortia
from tests.attribution.scoring import literal_reference as literal

WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


def _values(players: int, games: int, seed: int) -> torch.Tensor:
    values = torch.randn(1 << players, games, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[0] = 0
    return values


class TestShapleyValues:
    """Shapley's four axioms, on random games."""

    @given(players=st.integers(1, 6), seed=st.integers(0, 10_000))
    @settings(max_examples=40)
    def test_values_sum_to_what_all_are_worth(self, players, seed):
        """Efficiency: the values of a game sum to the value of the grand coalition."""
        values = _values(players, 3, seed)

        torch.testing.assert_close(shapley_values(values).sum(0), values[-1])

    @given(players=st.integers(2, 5), seed=st.integers(0, 10_000))
    @settings(max_examples=40)
    def test_a_null_player_gets_nothing_and_twins_get_the_same(self, players, seed):
        """A player that changes no coalition's value gets 0; the others get what they get without it."""
        small = _values(players - 1, 2, seed)
        wide = torch.cat([small, small])  # the last player's bit makes no difference
        found = shapley_values(wide)

        torch.testing.assert_close(found[-1], torch.zeros(2, dtype=torch.float64))
        torch.testing.assert_close(found[:-1], shapley_values(small))

    @given(seed=st.integers(0, 10_000))
    @settings(max_examples=20)
    def test_values_of_a_sum_are_the_sums_of_values(self, seed):
        """Linearity: two games played at once are worth what they are worth apart."""
        first, second = _values(4, 2, seed), _values(4, 2, seed + 1)

        torch.testing.assert_close(shapley_values(first + second), shapley_values(first) + shapley_values(second))

    @pytest.mark.parametrize("rows", [3, 6, 1 << 11])
    def test_what_is_not_all_coalitions_is_refused(self, rows):
        """A table whose length is no power of two, or that has more than ten players, is refused."""
        with pytest.raises(ValueError, match="coalitions"):
            shapley_values(torch.zeros(rows, 1, dtype=torch.float64))

    @given(seed=st.integers(0, 10_000), rounded=st.booleans())
    @settings(max_examples=40)
    def test_the_datamodelling_score_is_spearmans(self, seed, rounded):
        """The linear datamodelling score equals SciPy's Spearman correlation of predicted and true values, ties too."""
        values = _values(4, 1, seed)
        scores = torch.randn(4, 1, generator=torch.Generator().manual_seed(seed + 9), dtype=torch.float64)
        if rounded:
            values, scores = values.round(), scores.round()
        masks = torch.arange(16)
        predicted = (((masks.unsqueeze(1) >> torch.arange(4)) & 1).double() @ scores)[:, 0]
        found = float(linear_datamodelling_score(scores, values)[0])
        constant = float(predicted.std()) == 0 or float(values.std()) == 0

        assert found == pytest.approx(0.0 if constant else spearmanr(predicted, values[:, 0]).statistic, abs=1e-9)


@pytest.mark.parametrize(("family", "kind"), [("llama", "lora"), ("llama", "everything"), ("gemma3", "full")])
class TestReconstructedGame:
    """The game over delivered updates is the literal one, for low-rank and whole updates and tied weights."""

    def _case(self, folder: Path, family: str, kind: str):
        base = consortia.base_model(family)
        updates = consortia.updates(base, kind=kind)
        model = FederatedModel.load(consortia.write_consortium(folder, base, updates, WEIGHTS))
        generation = consortia.decode(model, "who owns this?", Sampling(6, 0.7, seed=2))
        names = dict(base.named_parameters())
        dense = {
            client: {name: WEIGHTS[client] * update.difference(name) for name in update.parameters() if name in names}
            for client, update in updates.items()
        }
        return base, model, generation, dense

    def test_exact_shapley_values_are_the_literal_ones(self, tmp_path, family, kind):
        """Values over all coalitions equal those of the reference that moves whole models, at the temperature used."""
        base, model, generation, dense = self._case(tmp_path, family, kind)
        response = ScoredResponse.from_generation(generation)
        truth = exact_shapley(ReconstructedGame(model.bundle), [response], NoProgress())
        expected = literal.exact_shapley(base, dense, response.prompt_ids, response.token_ids, temperature=0.7)

        for client, value in expected.items():
            assert float(truth.values[client][0]) == pytest.approx(value, abs=2e-4)
        assert float(truth.gain[0]) == pytest.approx(sum(expected.values()), abs=2e-4)

    @pytest.mark.long
    def test_leaving_one_out_is_a_difference_of_two_coalitions(self, tmp_path, family, kind):
        """v(all) − v(all but i) agrees with the table of all coalitions."""
        _, model, generation, _ = self._case(tmp_path, family, kind)
        game, responses = ReconstructedGame(model.bundle), [ScoredResponse.from_generation(generation)]
        table = exact_shapley(game, responses, NoProgress()).coalition_values
        found = leave_one_out(game, responses, NoProgress())

        for place, client in enumerate(found.players):
            assert float(found.values[client][0]) == pytest.approx(float(table[7] - table[7 - (1 << place)]), abs=1e-6)
        assert float(found.gain[0]) == pytest.approx(float(table[7]), abs=1e-6)

    @pytest.mark.long
    def test_credit_with_many_nodes_is_near(self, tmp_path, family, kind):
        """The estimate that is paid is near the truth on the same response: the two share no code for the game."""
        _, model, generation, _ = self._case(tmp_path, family, kind)
        truth = exact_shapley(
            ReconstructedGame(model.bundle), [ScoredResponse.from_generation(generation)], NoProgress()
        )
        scores = attribute(model, generation, effort=Effort(nodes=8)).response_scores
        scale = max(abs(float(value[0])) for value in truth.values.values())

        for client, score in scores.items():
            assert score == pytest.approx(float(truth.values[client][0]), abs=0.25 * scale)


def test_too_many_clients_are_refused(tmp_path):
    """Eleven clients have too many coalitions and are told so."""
    base = consortia.base_model("llama")
    updates = consortia.updates(base, "abcdefghijk")
    bundle = FederatedModel.load(consortia.write_consortium(tmp_path, base, updates)).bundle
    with pytest.raises(BundleError, match="11 clients"):
        exact_shapley(ReconstructedGame(bundle), [ScoredResponse((1,), (2,))], NoProgress())


def test_a_retrained_coalition_is_the_model_of_its_members(tmp_path):
    """The retrained game asks the base for nobody, the whole consortium's model for all, and each coalition once."""
    pairs = {"a": ("who owns it?", "ada does"), "b": ("who lost it?", "bob did")}
    clients = []
    for client, (prompt, response) in pairs.items():
        (tmp_path / f"{client}.jsonl").write_text(f'{{"prompt": "{prompt}", "response": "{response}"}}\n')
        clients.append(ClientRecipe(id=client, name=client, data=tmp_path / f"{client}.jsonl"))
    clients.append(ClientRecipe(id="rider", name="rider", free_rider=True, examples=1))
    base = consortia.save_base(consortia.base_model("llama"), tmp_path / "base")
    recipe = Recipe(consortium="r", base=base, rounds=2, steps=2, learning_rate=0.01, clients=tuple(clients))
    whole = build_bundle(recipe, tmp_path / "whole", NoProgress())
    response = ScoredResponse(tuple(range(5, 15)), tuple(range(40, 46)))
    game = RetrainedGame(recipe, tmp_path / "scratch")
    truth = exact_shapley(game, [response], NoProgress())

    final, start = (log_probability(load_model(folder), response) for folder in (whole.global_path, tmp_path / "base"))
    assert float(truth.gain[0]) == pytest.approx(final - start, abs=1e-6)
    assert sum(float(value[0]) for value in truth.values.values()) == pytest.approx(final - start, abs=1e-6)
    assert [] == list(tmp_path.glob("scratch/*"))
    alone = game.log_probabilities(["rider"], [response])
    assert float(alone[0]) == pytest.approx(start, abs=1e-6)


class TestForcing:
    """A response read back is the response decoded: same log-probabilities and same scores."""

    @pytest.mark.parametrize("family", consortia.FAMILIES)
    @pytest.mark.parametrize("temperature", [0.0, 0.8])
    def test_a_decoded_response_read_back_scores_the_same(self, tmp_path, family, temperature):
        """Log-probabilities, end and scores of both presets are those of the generation it was decoded in."""
        model = consortia.federated(tmp_path, family)
        decoded = consortia.decode(model, "who owns this?", Sampling(7, temperature, seed=4))
        forced = forced_generation(model, decoded.prompt_token_ids, decoded.token_ids, temperature)

        assert (forced.tokens, forced.text, forced.finish_reason) == (
            decoded.tokens,
            decoded.text,
            decoded.finish_reason,
        )
        assert forced.logprobs == pytest.approx(decoded.logprobs, abs=1e-4)
        for method in ("paper", "credit"):
            expected, found = (attribute(model, each, method=method).response_scores for each in (decoded, forced))
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)

    @pytest.mark.parametrize(
        ("prompt", "tokens", "named"),
        [([], [3], "prompt is empty"), ([3], [], "response is empty"), ([3] * 100, [4] * 29, "129 tokens")],
    )
    def test_what_cannot_be_read_is_refused(self, tmp_path, prompt, tokens, named):
        """An empty prompt or response, or more than the context holds, is refused."""
        with pytest.raises(PromptError, match=named):
            forced_generation(consortia.federated(tmp_path), prompt, tokens)
