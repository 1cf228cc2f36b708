"""What the benchmark of serving makes of the moments that it measured."""

import json

import pytest
from rich.console import Console

from tests.benchmarks.figures import print_figures
from tests.benchmarks.serving.loads import Load, Reply, equal_texts, percentile
from tests.benchmarks.serving.outcome import figures_of, sanity_of, table_of
from tests.benchmarks.serving.prompts import prompts_of_levels
from tests.benchmarks.serving.record import ENGINE, EVERY, MODES, TENTH, Record

BATCHING, ALONE = MODES


def reply(step_s: float, *, begin: float = 0.0, tokens: int = 5, prompt: str = "1, 2,", text: str = " 3, 4") -> Reply:
    """A reply with its first token after a second, then one each step, and an end half a second after the last."""
    pieces = tuple(begin + 1.0 + step_s * number for number in range(tokens))
    return Reply(prompt, text, tokens, begin, pieces, pieces[-1] + 0.5)


def load(step_s: float, streams: int = 1) -> Load:
    return Load(streams, tuple(reply(step_s) for _ in range(streams)))


def record(*loads: tuple[int, str, Load]) -> Record:
    return Record({(pair, name, each.streams): each for pair, name, each in loads})


def test_a_load_is_what_its_streams_came_to():
    """Tokens a second from the first request to the last end; times between tokens over all replies."""
    both = Load(2, (reply(0.25), reply(0.25, begin=0.5)))

    assert 10 / 3.0 == both.tokens_per_s
    assert 1.0 == both.first_token_s
    assert (0.25, 0.25) == (both.between_s(50), both.between_s(99))
    assert 0.5 == both.end_wait_s


def test_a_percentile_may_fall_between_two_values():
    """As NumPy's does, and one value is every percentile of itself."""
    assert 2.5 == percentile([1.0, 2.0, 3.0, 4.0], 50)
    assert 7.0 == percentile([7.0], 99)


def test_a_text_held_back_until_the_booking_counts_as_waiting_for_the_end():
    """The wait begins with the last piece but one, so that it is seen however a server delivers its last piece."""
    late = Reply("1,", "2, 3", 4, 0.0, (1.0, 1.25, 1.5, 3.75), 3.75)

    assert 2.0 == Load(1, (late,)).end_wait_s


def test_texts_are_compared_prompt_by_prompt():
    """Prompts that only one answered do not count, and none in common is an error."""
    ours = [reply(1, prompt="a", text="x"), reply(1, prompt="b", text="y"), reply(1, prompt="c", text="z")]
    theirs = [reply(1, prompt="a", text="x"), reply(1, prompt="b", text="other")]

    assert 0.5 == equal_texts(ours, theirs)
    with pytest.raises(ValueError, match="no prompt in common"):
        equal_texts(ours[2:], theirs)


def test_each_level_has_prompts_of_its_own():
    """No prompt is asked twice, and one stream asks four at least."""
    prompts = prompts_of_levels([1, 8, 32], 2)
    every = [prompt for those in prompts.values() for prompt in those]

    assert {1: 4, 8: 16, 32: 64} == {streams: len(those) for streams, those in prompts.items()}
    assert len(every) == len(set(every))


def test_a_figure_is_the_median_of_its_pairs_against_the_better_mode():
    """Each pair's ratio is taken within it; figures whose servers were not measured are left out."""
    pairs = [(0, 0.5, 0.25), (1, 0.25, 0.25), (2, 0.125, 0.25)]
    ours = [(pair, EVERY, load(step)) for pair, step, _ in pairs]
    theirs = [(pair, BATCHING, load(step)) for pair, _, step in pairs] + [(0, ALONE, load(2.0))]
    figures = {figure.name: figure for figure in figures_of(record(*ours, *theirs, *_engine()))}

    assert {"between_tokens_service_over_engine", "credited_vs_peer_1"} == figures.keys()
    assert (1.0, 0.9, True) == _told(figures["credited_vs_peer_1"])
    assert (2.0, 1.10, False) == _told(figures["between_tokens_service_over_engine"])
    assert "3 pairs" in figures["credited_vs_peer_1"].detail


def test_once_credit_can_be_sampled_the_usual_service_credits_a_tenth():
    """Then the time between tokens is that of such a service, and `credited_vs_peer` is of the other."""
    figures = figures_of(record((0, TENTH, load(0.25)), (0, EVERY, load(0.5)), (0, BATCHING, load(0.5)), *_engine()))

    assert {
        "between_tokens_service_over_engine": 2.0,
        "throughput_vs_peer_1": 1.4,
        "credited_vs_peer_1": 1.0,
    } == {figure.name: pytest.approx(figure.value) for figure in figures}


def test_a_service_that_samples_nothing_has_no_figure_of_sampled_credit():
    """Where every token was measured although a tenth was asked for, the figures are those of all."""
    measured = record((0, TENTH, load(0.25)), (0, EVERY, load(0.25)), (0, BATCHING, load(0.25)))
    measured.measured[TENTH] = [1.0]

    assert ["credited_vs_peer_1"] == [figure.name for figure in figures_of(measured)]
    assert f"{TENTH}: 100.0% of the tokens were measured" in sanity_of(measured)


def test_what_is_printed_is_a_table_and_a_line_of_json_for_each_figure(capsys: pytest.CaptureFixture[str]):
    """Each line with the five fields of design 11."""
    measured = record((0, EVERY, load(0.5)), (0, BATCHING, load(0.25)), *_engine())
    measured.memory[EVERY] = [2**30]
    Console(width=150).print(table_of(measured))
    print_figures("serving", figures_of(measured))
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]

    assert "1024 MiB" in printed
    assert {"bench", "figure", "value", "target", "ok"} == lines[0].keys()
    assert ["between_tokens_service_over_engine", "credited_vs_peer_1"] == [line["figure"] for line in lines]


def test_texts_that_differ_are_told():
    """One line for each peer that was measured, and one that says how long responses were."""
    lines = sanity_of(record((0, EVERY, load(0.5)), (0, BATCHING, load(0.25))))

    assert f"equal texts, ours and {BATCHING}: 100.0%" in lines
    assert "tokens of a response: 5 to 5, 5.0 on average" in lines


def _engine() -> list[tuple[int, str, Load]]:
    return [(pair, ENGINE, load(0.125)) for pair in range(3)]


def _told(figure) -> tuple[float, float, bool]:
    return figure.value, figure.target, figure.ok
