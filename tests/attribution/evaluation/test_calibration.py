"""Calibrations: sampled Shapley values near exact ones, and figures as a slow oracle and E9's definitions have them."""

from itertools import permutations
from pathlib import Path
from statistics import quantiles

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from attribution.attribute import attribute
from attribution.evaluation.calibration import Prompts, _Row, _sampling_distance, calibrate, passes_needed
from attribution.evaluation.calibration_report import CalibrationReport
from attribution.evaluation.ground_truth import (
    ReconstructedGame,
    ScoredResponse,
    coalitions_asked,
    exact_shapley,
    sampled_shapley,
)
from attribution.evaluation.shapley import antithetic_orders, sampled_values, shapley_values
from attribution.evaluation.statistics import compare_shares, positive_shares, total_variation
from attribution.model import FederatedModel
from attribution.progress import NoProgress
from attribution.records import Generation
from attribution.teacher_forcing import response_to
from tests.attribution import consortia
from tests.attribution.evaluation import slow_truth

PROMPTS = Prompts("ab" * 32, 12)
QUESTIONS = ("who owns this?", "where is it?", "when was that?", "why?")


def _game(players: int, games: int, seed: int) -> tuple[torch.Tensor, dict[frozenset[int], torch.Tensor]]:
    """A random game as a table by bit masks, and the same by sets of players."""
    table = torch.randn(1 << players, games, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table -= table[0].clone()
    worth = {frozenset(p for p in range(players) if mask >> p & 1): table[mask] for mask in range(1 << players)}
    return table, worth


def _model(folder: Path, clients: str = "abc", *, size: float = 0.06, idle: str = "") -> FederatedModel:
    """A consortium whose clients change much, so that answers gain some nats; those of `idle` change nothing."""
    base = consortia.base_model("llama")
    updates = {
        client: consortia.lora_update(base, seed, first_block=2, size=0.0 if client in idle else size)
        for seed, client in enumerate(clients)
    }
    return FederatedModel.load(consortia.write_consortium(folder, base, updates, dict.fromkeys(clients, 1.0)))


def _responses(model: FederatedModel, tokens: int = 12) -> list[Generation]:
    return [response_to(model, model.encode_text(question), None, tokens) for question in QUESTIONS]


class TestSampledValues:
    """Means over orders of joining: unbiased, efficient, and with an error that is told."""

    @given(players=st.integers(1, 5), seed=st.integers(0, 10_000))
    @settings(max_examples=30, deadline=None)
    def test_all_orders_together_are_exact(self, players, seed):
        """Over every order there is, and its reverse, the mean is the exact value."""
        table, worth = _game(players, 2, seed)
        orders = [each for order in permutations(range(players)) for each in (order, order[::-1])]
        values, _ = sampled_values(orders * 2, worth)

        torch.testing.assert_close(values, shapley_values(table))

    @given(players=st.integers(1, 12), seed=st.integers(0, 10_000), pairs=st.integers(2, 4))
    @settings(max_examples=30, deadline=None)
    def test_an_additive_game_is_exact(self, players, seed, pairs):
        """Where each adds the same to whomever, any orders give exactly that, with no error."""
        added = torch.randn(players, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        orders = antithetic_orders(players, pairs, str(seed))
        worth = {
            frozenset(order[:size]): added[list(order[:size])].sum(0) for order in orders for size in range(players + 1)
        }
        values, errors = sampled_values(orders, worth)

        torch.testing.assert_close(values, added)
        torch.testing.assert_close(errors, torch.zeros_like(added))

    @given(players=st.integers(1, 6), seed=st.integers(0, 10_000), pairs=st.integers(2, 4))
    @settings(max_examples=30, deadline=None)
    def test_values_sum_to_what_all_are_worth(self, players, seed, pairs):
        """However few orders: each by itself shares out the whole."""
        table, worth = _game(players, 2, seed)
        values, _ = sampled_values(antithetic_orders(players, pairs, str(seed)), worth)

        torch.testing.assert_close(values.sum(0), table[-1])

    def test_sampled_is_exact_within_its_error(self):
        """Eight random games of five: nowhere five standard errors away, and about a third further away than one.

        The second says that the error is told neither too small nor too large.
        """
        deviations = []
        for seed in range(8):
            table, worth = _game(5, 6, seed)
            values, errors = sampled_values(antithetic_orders(5, 100, f"game {seed}"), worth)
            deviations.append(((values - shapley_values(table)).abs() / errors).flatten())
        all_of_them = torch.cat(deviations)

        assert float(all_of_them.max()) < 5
        assert 0.2 < float((all_of_them > 1).double().mean()) < 0.45

    @given(players=st.integers(1, 60), pairs=st.integers(1, 5), seed=st.text(max_size=8))
    def test_orders_are_orders_with_their_reverses(self, players, pairs, seed):
        """Each has every player once, the second of two is the first backwards, and a seed gives always the same."""
        orders = antithetic_orders(players, pairs, seed)

        assert 2 * pairs == len(orders)
        assert all(sorted(order) == list(range(players)) for order in orders)
        assert orders[0::2] == [order[::-1] for order in orders[1::2]]
        assert orders == antithetic_orders(players, pairs, seed)

    def test_the_orders_of_a_seed_stay_as_they_are(self):
        """Whoever repeats an older calibration samples what it sampled."""
        assert [(3, 1, 2, 0), (0, 2, 1, 3)] == antithetic_orders(4, 1, "ab")

    def test_every_player_comes_first_as_often(self):
        """About: of 4 players and 400 orders none is first much more, or less, than 100 times."""
        firsts = [order[0] for order in antithetic_orders(4, 400, "any")[0::2]]

        assert all(70 < firsts.count(player) < 130 for player in range(4))


def test_sampled_values_of_a_bundle_are_near_the_exact_ones(tmp_path):
    """On the same bundle and responses: within five standard errors of each, and the gain is the same."""
    model = _model(tmp_path, "abcd")
    game, responses = (
        ReconstructedGame(model.bundle),
        [ScoredResponse.from_generation(each) for each in _responses(model)],
    )
    exact = exact_shapley(game, responses, NoProgress())
    sampled = sampled_shapley(game, responses, 30, model.global_sha256, NoProgress())

    assert sampled.standard_errors is not None
    torch.testing.assert_close(sampled.gain, exact.gain)
    torch.testing.assert_close(sum(sampled.values.values()), exact.gain)
    for client in exact.players:
        bound = 5 * sampled.standard_errors[client] + 1e-6
        assert bool(((sampled.values[client] - exact.values[client]).abs() <= bound).all())


def test_figures_are_those_of_a_slow_oracle(tmp_path):
    """Truth from the bundle's files, orders of joining and whole models; distances and means by loops written apart."""
    model = _model(tmp_path)
    responses = [
        *_responses(model),
        *(response_to(model, model.encode_text("why?"), (token,), 12) for token in (70, 80)),
    ]
    report = calibrate(model, responses, PROMPTS, 50, NoProgress())
    distances, differences, points, errors, small = [], [], [], [], []
    given_sum, true_sum = dict.fromkeys("abc", 0.0), dict.fromkeys("abc", 0.0)
    for each in responses:
        paid = attribute(model, each)
        true = slow_truth.shapley_values(model.bundle.path, each.prompt_token_ids, each.token_ids)
        shares = []
        for values, total in ((paid.response_scores, given_sum), (true, true_sum)):
            positive = {client: max(0.0, values[client]) for client in "abc"}
            shares.append({client: positive[client] / sum(positive.values()) for client in "abc"})
            for client in "abc":
                total[client] += sum(1 - beta for beta in paid.base_shares) * shares[-1][client]
        if paid.gain <= 1:
            small.append((len(each.token_ids), paid.base_share))
            continue
        gaps = [abs(shares[0][client] - shares[1][client]) for client in "abc"]
        distances.append(sum(gaps) / 2)
        differences += gaps
        points += [(shares[1][client], shares[0][client]) for client in "abc"]
        errors.append(abs(sum(paid.response_scores.values()) - paid.gain) / paid.gain)
    settled = sum(abs(given_sum[c] / sum(given_sum.values()) - true_sum[c] / sum(true_sum.values())) for c in "abc") / 2
    figures = report.figures

    assert len(distances) >= 2 and small, "nothing of a kind, so nothing of it was tested"
    assert (len(responses), len(small), 0) == (report.responses, report.small_gains, report.without_shares)
    assert len(distances) == figures.distance.n == figures.distance_p95.n == report.compared_responses
    assert figures.distance.value == pytest.approx(sum(distances) / len(distances), abs=1e-4)
    assert figures.distance.low <= figures.distance.value <= figures.distance.high
    assert figures.distance_p95.value == pytest.approx(quantiles(distances, n=20, method="inclusive")[-1], abs=1e-4)
    assert figures.largest_difference.value == pytest.approx(max(differences), abs=1e-4)
    assert figures.completeness_error.value == pytest.approx(sum(errors) / len(errors), abs=1e-6)
    assert figures.settled_distance.value == pytest.approx(settled, abs=1e-4)
    assert figures.correlation.n == 3 * len(distances)
    assert figures.correlation.value == pytest.approx(np.corrcoef(np.array(points).T)[0, 1], abs=1e-4)
    assert (None, 0) == (figures.truth_error.value, figures.truth_error.n)
    commons = sum(tokens * base for tokens, base in small) / sum(tokens for tokens, _ in small)
    assert figures.small_gains_commons.value == pytest.approx(commons)


def test_a_report_says_what_it_takes_to_repeat_it(tmp_path):
    """Which bundle, by which prompts, how exactly, against what; and as JSON it comes back as it was."""
    model = _model(tmp_path)
    responses = _responses(model)
    report = calibrate(model, responses, PROMPTS, 50, NoProgress())
    again = calibrate(model, responses, PROMPTS, 2, NoProgress())

    assert (model.name, model.global_sha256) == (report.consortium, report.model_sha256)
    assert ("credit", 0.02, "float32", 3) == (report.method, report.tolerance, report.dtype, report.clients)
    assert ("exact", None, PROMPTS.sha256) == (report.truth, report.permutations, report.prompts_sha256)
    assert "over all 8 coalitions" in report.truth_words
    assert "would go to others by exact Shapley values" in report.verdict
    assert report == CalibrationReport.model_validate_json(report.model_dump_json())
    assert report.identity == again.identity
    assert report.identity == report.model_copy(update={"finished": "another day"}).identity
    assert report.identity != report.model_copy(update={"responses": 99}).identity
    with pytest.raises(ValidationError):
        CalibrationReport.model_validate({**report.model_dump(), "prompt": "who?"})


def test_many_clients_are_calibrated_by_permutations(tmp_path):
    """Eleven: the truth is sampled by the model's hash, so it is the same each time, and tells its own error."""
    model = _model(tmp_path, "abcdefghijk", size=0.03)
    responses = _responses(model)[:2]
    first, second = (calibrate(model, responses, PROMPTS, 4, NoProgress()) for _ in range(2))

    assert ("permutations", 8) == (first.truth, first.permutations)
    assert first.identity == second.identity
    assert first.compared_responses > 0 and first.figures.truth_error.n == first.compared_responses
    game = ReconstructedGame(model.bundle)
    truth = sampled_shapley(
        game, [ScoredResponse.from_generation(each) for each in responses], 4, model.global_sha256, NoProgress()
    )
    distances = [
        total_variation(
            positive_shares(attribute(model, each).response_scores),
            positive_shares({client: float(values[place]) for client, values in truth.values.items()}),
        )
        for place, each in enumerate(responses)
    ]
    assert first.compared_responses == len(responses)
    assert first.figures.distance.value == pytest.approx(sum(distances) / len(distances), abs=1e-6)
    assert 0 < first.figures.truth_error.value < 1
    assert "sampled from 8 orders in which 11 clients may join" in first.truth_words


def test_the_error_of_sampling_is_the_distance_that_it_makes():
    """Over many seeds, the distance of sampled shares from the exact ones is on average what is told of each sample."""
    table, worth = _game(5, 1, 3)
    size = torch.tensor([float(mask.bit_count()) for mask in range(32)], dtype=torch.float64)
    table[:, 0] += 6 * size  # so that everybody's value is positive
    exact = {str(player): float(value) for player, value in enumerate(shapley_values(table)[:, 0])}
    told, made = [], []
    for seed in range(60):
        values, errors = sampled_values(antithetic_orders(5, 20, str(seed)), worth)
        sampled, error = ({str(player): float(row[0]) for player, row in enumerate(of)} for of in (values, errors))
        told.append(_sampling_distance(_Row(None, sampled, error)))
        made.append(total_variation(positive_shares(sampled), positive_shares(exact)))

    assert min(exact.values()) > 0
    assert 0.8 < sum(told) / sum(made) < 1.25


def test_one_client_alone_gets_what_is_its(tmp_path):
    """Of one there is nothing to divide: no distance, and no correlation of what does not vary."""
    model = _model(tmp_path, "a", size=0.1)
    report = calibrate(model, _responses(model), PROMPTS, 50, NoProgress())

    assert report.compared_responses > 0
    assert (0.0, 0.0, None) == (
        report.figures.distance.value,
        report.figures.settled_distance.value,
        report.figures.correlation.value,
    )


def test_free_riders_alone_leave_nothing_to_compare(tmp_path):
    """Nobody changed anything, so nothing gained: all figures of shares are absent, and the sentence says why."""
    model = _model(tmp_path, "ab", idle="ab")
    report = calibrate(model, _responses(model), PROMPTS, 50, NoProgress())

    assert (0, len(QUESTIONS)) == (report.compared_responses, report.small_gains)
    assert {None} == {
        each.value for each in (report.figures.distance, report.figures.settled_distance, report.figures.correlation)
    }
    assert report.figures.small_gains_commons.value == pytest.approx(1.0)
    assert report.verdict.startswith("No response could be compared")


def test_a_free_rider_among_others_is_right_with_nothing(tmp_path):
    """By both it gets exactly nothing, and the others are compared as ever."""
    model = _model(tmp_path, "abc", idle="c")
    game = ReconstructedGame(model.bundle)
    responses = _responses(model)
    truth = exact_shapley(game, [ScoredResponse.from_generation(each) for each in responses], NoProgress())

    assert {0.0} == {float(value) for value in truth.values["c"]}
    assert calibrate(model, responses, PROMPTS, 50, NoProgress()).compared_responses > 0


@given(
    st.lists(
        st.tuples(*(st.one_of(st.none(), st.floats(0, 1).map(lambda a: {"a": a, "b": 1 - a})) for _ in range(2))),
        max_size=6,
    )
)
def test_what_has_no_shares_is_not_compared(pairs):
    """A pair of which one is None leaves no trace; every other leaves a distance of 0 to 1, and a point a client."""
    whole = [(given, true) for given, true in pairs if given is not None and true is not None]
    compared = compare_shares(pairs)

    assert len(whole) == len(compared.distances)
    assert 2 * len(whole) == len(compared.points)
    assert all(0 <= distance <= 1 + 1e-9 for distance in compared.distances)
    assert compared == compare_shares(whole)


def test_how_long_it_takes_is_known_before():
    """All coalitions up to ten clients, and of more those that the orders pass; each asks every response."""
    assert (2, 1024, 2 + 2 * 50 * 10) == tuple(coalitions_asked(clients, 50) for clients in (1, 10, 11))
    assert 7 * (1024 + 10) == passes_needed(10, 7, 50)
