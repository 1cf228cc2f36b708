"""ProToken in front of ProToken: one generates, the other credits; and an engine with other weights serves nobody."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.end_to_end.service import Service, free_port, new_ledger, once_booked, service
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
SHARE = 1 / 3


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small consortium of three, and the same without what the last of them taught."""
    model = base_model("llama", max_position_embeddings=2048)
    three = updates(model)
    two = {name: update for name, update in three.items() if name != "c"}
    weights = dict.fromkeys(three, SHARE)
    whole = write_consortium(tmp_path_factory.mktemp("whole"), model, three, weights)
    return whole, write_consortium(tmp_path_factory.mktemp("lacking"), model, two, weights)


@contextmanager
def engine(bundle: Path, folder: Path, ports: tuple[int, int, int], ledger: str) -> Iterator[Service]:
    """The service that generates."""
    with service(bundle, ledger, folder / "engine.log", ports=ports) as running:
        yield running


def ask(running: Service, route: str = "completions", **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {running.application}"}
    url = f"{running.address}/v1/{route}"
    return httpx.post(url, json={"model": "test", **body}, headers=headers, timeout=PATIENCE_S)


def health_becomes(running: Service, told: Callable[[httpx.Response], bool]) -> httpx.Response:
    """What health says, once it says that."""
    last: list[httpx.Response] = []

    def answer() -> httpx.Response | None:
        last[:] = [httpx.get(f"{running.address}/health", timeout=PATIENCE_S)]
        return last[0] if told(last[0]) else None

    return until(answer, what=lambda: f"another answer than {last[0].text}")


def test_a_service_may_be_the_engine_of_another(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """The front answers as its engine would, whole and streamed, and credits by itself; until that engine changes."""
    whole, lacking = bundles
    ports = free_port(), free_port(), free_port()
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for folder in (inner, outer):
        folder.mkdir()
    inner_ledger = new_ledger(inner)
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        behind = first.enter_context(engine(whole, inner, ports, inner_ledger))
        variables = {"PROTOKEN_ENGINE_KIND": "openai", "PROTOKEN_ENGINE_URL": behind.address}
        variables["PROTOKEN_ENGINE_API_KEY"] = behind.application
        front = stack.enter_context(service(whole, new_ledger(outer), outer / "front.log", more=variables))
        _answers_as_its_engine(front, behind)
        _credits(front)
        first.close()
        health_becomes(front, lambda answer: "does not answer" in answer.text)
        refused = ask(front, prompt="Hello", max_tokens=4)
        assert (503, "engine_unreachable") == (refused.status_code, refused.json()["error"]["code"])
        stack.enter_context(engine(lacking, inner, ports, inner_ledger))
        answer = health_becomes(front, lambda answer: "other weights" in answer.text)
        refused = ask(front, prompt="Hello", max_tokens=4)

    assert 503 == answer.status_code
    assert (503, "engine_differs") == (refused.status_code, refused.json()["error"]["code"])
    assert behind.application not in (outer / "front.log").read_text()


def _answers_as_its_engine(front: Service, behind: Service) -> None:
    greedy = {"temperature": 0.0, "max_tokens": 40}
    for body in (
        {"prompt": "Hello"},
        {"prompt": "Hello", "logprobs": 2},
        {"prompt": [40, 41, 42], "return_token_ids": True},
        {"prompt": "Hello", "frequency_penalty": 1.5, "logit_bias": {"50": 3}},
    ):
        choices = [
            once_booked(running, ask(running, **greedy, **body)).json()["choices"][0] for running in (front, behind)
        ]
        told = [choice.pop("logprobs") for choice in choices]
        assert choices[0] == choices[1]
        if told[0] is not None:
            assert told[0]["tokens"] == told[1]["tokens"]
            assert told[0]["token_logprobs"] == pytest.approx(told[1]["token_logprobs"], abs=1e-4)
    chat = {"messages": [{"role": "user", "content": "Hello"}], **greedy}
    texts = [ask(running, "chat/completions", **chat).json()["choices"][0]["message"] for running in (front, behind)]
    assert texts[0] == texts[1]
    text = ask(behind, prompt="Hello", **greedy).json()["choices"][0]["text"]
    stopped = ask(front, prompt="Hello", **greedy, stop=text[20:23]).json()["choices"][0]
    assert (text[: text.index(text[20:23])], "stop") == (stopped["text"], stopped["finish_reason"])
    far = ask(front, prompt="x" * 3000, max_tokens=4)
    assert (400, "context_length_exceeded") == (far.status_code, far.json()["error"]["code"])


def _credits(front: Service) -> None:
    body = {"prompt": "Hello", "max_tokens": 40, "temperature": 1.0, "seed": 4, "attribution": "tokens"}
    whole = ask(front, **body).json()
    streamed = [
        json.loads(line.removeprefix("data: "))
        for line in ask(front, **body, stream=True).text.split("\n\n")
        if line.startswith("data: {")
    ]
    text = "".join(choice["text"] for chunk in streamed for choice in chunk["choices"])
    receipt = Ledger(front.ledger).receipt(whole["id"])

    assert whole["choices"][0]["text"] == text
    assert receipt is not None
    assert {"kind": "openai", "model": "test"} == receipt.settings["engine"]
    assert 40_000_000 == sum(map(int, whole["usage"]["attribution"]["credit"].values()))
    assert whole["usage"]["attribution"]["shares"] == pytest.approx(streamed[-1]["usage"]["attribution"]["shares"])
