"""The real service takes up a new round while it answers, goes back, and serves several consortia by their names."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from attribution.bundle.bundle import manifest_of
from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, lora_update, updates, write_consortium
from tests.end_to_end.service import Service, new_ledger, service
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two rounds of one consortium, and one of another."""
    model = base_model("llama", max_position_embeddings=4096)
    second = {name: lora_update(model, 10 + seed, first_block=2) for seed, name in enumerate("bcd")}
    place = tmp_path_factory.mktemp("rounds")
    return {
        "first": write_consortium(place / "first", model, updates(model)),
        "second": write_consortium(place / "second", model, second, number=2),
        "other": write_consortium(place / "other", model, updates(model, "xy"), name="other"),
    }


@pytest.fixture(scope="module")
def running(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service of both consortia."""
    folder = tmp_path_factory.mktemp("service")
    with service(
        bundles["first"],
        new_ledger(folder),
        folder / "serve.log",
        more={"PROTOKEN_MORE_BUNDLES": str(bundles["other"])},
    ) as running:
        yield running


def sha(bundle: Path) -> str:
    return manifest_of(bundle).global_.sha256


def served(running: Service, model: str = "test") -> str:
    """The hash of what is served under a name."""
    headers = {"Authorization": f"Bearer {running.application}"}
    told: str = httpx.get(f"{running.address}/v1/models/{model}", headers=headers, timeout=PATIENCE_S).json()[
        "global_sha256"
    ]
    return told


def protoken(running: Service, *words: str) -> None:
    """What an operator types."""
    command = [sys.executable, "-m", "deployment.cli", "consortium", *words, "--ledger", running.ledger]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)


def stream(running: Service, tokens: int, model: str = "test") -> tuple[str, bool]:
    """A streamed response that does not end by itself: its id, and whether it came whole."""
    body = {"model": model, "prompt": "Hello", "max_tokens": tokens, "stream": True, "logit_bias": {"2": -100}}
    headers = {"Authorization": f"Bearer {running.application}"}
    with httpx.stream(
        "POST", f"{running.address}/v1/completions", json=body, headers=headers, timeout=PATIENCE_S
    ) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    if answer.status_code != 200:
        return "", False
    return lines[0].split('"id":"')[1].split('"')[0], lines[-1] == "data: [DONE]" and "error" not in lines[-2]


def test_a_publish_and_a_rollback_fail_no_request(running: Service, bundles: dict[str, Path]) -> None:
    """Streams without a pause from three callers, long and short ones; each receipt names the round that began it."""
    ended: list[tuple[float, str, bool]] = []
    over = threading.Event()

    def ask(tokens: int) -> None:
        while not over.is_set():
            ended.append((time.time(), *stream(running, tokens)))

    callers = [threading.Thread(target=ask, args=(tokens,)) for tokens in (5, 40, 1500)]
    for caller in callers:
        caller.start()
    published_at = time.time()
    protoken(running, "publish", str(bundles["second"]))
    until(lambda: served(running) == sha(bundles["second"]))
    time.sleep(3)
    protoken(running, "rollback", "test")
    until(lambda: served(running) == sha(bundles["first"]))
    time.sleep(3)
    over.set()
    for caller in callers:
        caller.join()
    with closing(Ledger(running.ledger)) as ledger:
        until(lambda: all(ledger.is_booked(response_id) for _, response_id, _ in ended))
        rounds = {response_id: ledger.receipt(response_id).model_sha256 for _, response_id, _ in ended}
        clients = {
            (receipt.model_sha256, *sorted(receipt.measurement["response_scores"]))
            for receipt in ledger.receipts_after(0)
        }

    assert len(ended) > 10
    assert [] == [response_id for _, response_id, whole in ended if not whole]
    assert {sha(bundles["first"]), sha(bundles["second"])} == set(rounds.values())
    before = [rounds[response_id] for at, response_id, _ in ended if at < published_at]
    assert {sha(bundles["first"])} == {*before, rounds[max(ended)[1]]}
    assert {(sha(bundles["first"]), "a", "b", "c"), (sha(bundles["second"]), "b", "c", "d")} == clients


def test_each_consortium_is_served_under_its_name(running: Service, bundles: dict[str, Path]) -> None:
    """Its responses are booked to its clients; an unknown name lists what there is."""
    response_id, whole = stream(running, 4, "other")
    headers = {"Authorization": f"Bearer {running.application}"}
    unknown = httpx.post(
        f"{running.address}/v1/completions",
        json={"model": "nobody", "prompt": "x"},
        headers=headers,
        timeout=PATIENCE_S,
    )
    with closing(Ledger(running.ledger)) as ledger:
        until(lambda: ledger.is_booked(response_id))
        receipt = ledger.receipt(response_id)

    assert whole
    assert receipt is not None
    assert ("other", sha(bundles["other"])) == (receipt.consortium, receipt.model_sha256)
    assert {"x", "y"} == receipt.measurement["response_scores"].keys()
    assert 404 == unknown.status_code
    assert "'test', 'other' are served" in unknown.json()["error"]["message"]
    assert {"model test": "ok", "model other": "ok"}.items() <= httpx.get(
        f"{running.address}/health", timeout=PATIENCE_S
    ).json()["parts"].items()


def test_a_start_serves_what_was_published_last(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Whatever the setting says, and the log says so."""
    ledger = new_ledger(tmp_path)
    with service(bundles["first"], ledger, tmp_path / "serve.log") as running:
        protoken(running, "publish", str(bundles["second"]))
    with service(bundles["first"], ledger, tmp_path / "serve.log") as running:
        told = served(running)

    assert sha(bundles["second"]) == told
    assert "round 2 of test is served" in (tmp_path / "serve.log").read_text()
