"""The benchmark for GPUs on a processor: all that it measures runs, and it tells so where there is no GPU."""

import json

import httpx
import pytest
import torch
from typer.testing import CliRunner

from tests.benchmarks.gpu.__main__ import app
from tests.benchmarks.gpu.model import SMALL, random_model
from tests.benchmarks.gpu.scoring import furthest, scores
from tests.benchmarks.gpu.vllm import engine_tokens_per_s, while_working


def test_every_figure_is_measured_on_a_small_model():
    """Parity by dtype, decoding by rows, credit by positions, and both at once: a line of JSON for each."""
    told = CliRunner().invoke(app, ["--small"], catch_exceptions=False)
    lines = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]

    assert 0 == told.exit_code
    assert [
        "gpu_scores_float16",
        "gpu_scores_bfloat16",
        *(f"gpu_decoding_{rows}_over_1" for rows in SMALL.rows[1:]),
        *(f"gpu_credit_{what}_{positions}" for positions in SMALL.positions for what in ("passes", "gib")),
        "gpu_mixed_p99_over_p50",
    ] == [line["figure"] for line in lines]
    assert {"gpu"} == {line["bench"] for line in lines}
    assert all(line["ok"] for line in lines if line["figure"].startswith("gpu_scores"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line():
    """And names what can be run instead."""
    told = CliRunner().invoke(app, [])

    assert 1 == told.exit_code
    assert "bench-gpu: torch finds no GPU here; --small runs the same on the processor\n" == told.stderr


def test_the_random_model_is_attributed_to_every_client():
    """Each has a score that is not nothing, and the same weights score the same."""
    model = random_model(SMALL, "cpu", "float32")
    (once,), (again,) = scores(model, 1, 32), scores(model, 1, 32)

    assert SMALL.clients == len(once.response_scores)
    assert all(once.response_scores.values())
    assert 0.0 == furthest([once], [again])


def test_an_engine_is_measured_alone_and_beside_other_work():
    """Tokens as the engine counts them; what fails beside it is told."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert "/v1/completions" == request.url.path
        return httpx.Response(200, json={"usage": {"completion_tokens": json.loads(request.content)["max_tokens"]}})

    def client() -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://engine", transport=httpx.MockTransport(answer))

    def measured() -> float:
        return engine_tokens_per_s(client, "any", 4, 16)

    done: list[int] = []
    assert measured() > 0
    assert while_working(lambda: done.append(1), measured) > 0
    assert done
    with pytest.raises(ZeroDivisionError):
        while_working(lambda: 1 / 0, measured)
