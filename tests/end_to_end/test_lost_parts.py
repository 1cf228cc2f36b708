"""The real service loses what it stands on, part by part: it says so at once, never hangs, and goes on afterwards."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.end_to_end.service import Service, new_ledger, replica_of, service
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
AT_ONCE_S = 25.0
"""Less than who waits for a lock does (30 s and more), and enough for a machine with others on it."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small consortium, which starts in seconds."""
    model = base_model("llama", max_position_embeddings=2048)
    return write_consortium(tmp_path_factory.mktemp("lost"), model, updates(model))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps everything but its bundle."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def running(bundle: Path, folder: Path) -> Any:
    """The service."""
    with service(bundle, new_ledger(folder), folder / "serve.log") as found:
        yield found


def health(running: Service, timeout_s: float = AT_ONCE_S) -> httpx.Response:
    return httpx.get(f"{running.address}/health", timeout=timeout_s)


def is_healthy(running: Service) -> bool:
    return health(running, PATIENCE_S).status_code == 200


def ask(running: Service, **more: Any) -> httpx.Response:
    body = {"model": "test", "prompt": "Hello", "max_tokens": 4, **more}
    headers = {"Authorization": f"Bearer {running.application}"}
    return httpx.post(f"{running.address}/v1/completions", json=body, headers=headers, timeout=AT_ONCE_S)


def models(running: Service) -> httpx.Response:
    headers = {"Authorization": f"Bearer {running.application}"}
    return httpx.get(f"{running.address}/v1/models", headers=headers, timeout=AT_ONCE_S)


def answers(running: Service) -> list[httpx.Response]:
    """What an application is told, each within the time that a health check may take."""
    return [health(running), ask(running), ask(running, stream=True), models(running)]


PARTS = {
    "ledger": "ledger.db",
    "spool": "spool",
    "signing_key": "signing_key",
    "pepper": "pepper_file",
}


@pytest.mark.parametrize("part", PARTS)
def test_part_that_is_gone_is_named_until_it_is_back(running: Service, folder: Path, part: str) -> None:
    """Health and requests are 503 with the part and the reason; once it is back, all goes on without a restart."""
    place = folder / PARTS[part]
    place.rename(folder / "aside")
    try:
        until(lambda: not is_healthy(running) and models(running).status_code == 503, AT_ONCE_S)
        refused, body = answers(running), health(running).json()
        scraped = httpx.get(running.metrics, timeout=AT_ONCE_S)
    finally:
        (folder / "aside").rename(place)
    until(lambda: is_healthy(running), AT_ONCE_S)

    assert [(503, f"{part}_missing")] * 4 == [(each.status_code, each.json()["error"]["code"]) for each in refused]
    assert "is gone" in body["parts"][part]
    assert (503 if part == "ledger" else 200) == scraped.status_code
    assert 200 == ask(running).status_code


def test_no_receipt_is_lost_with_the_ledger_s_file(running: Service, folder: Path) -> None:
    """A stream that ends while the file is gone ends on the spool's word; it is booked once the file is back."""
    headers = {"Authorization": f"Bearer {running.application}"}
    body = {"model": "test", "prompt": "Hello", "max_tokens": 1000, "temperature": 0, "stream": True}
    with httpx.stream(
        "POST", f"{running.address}/v1/completions", json=body, headers=headers, timeout=PATIENCE_S
    ) as answer:
        lines = answer.iter_lines()
        first = next(line for line in lines if line.startswith("data: {"))
        (folder / "ledger.db").rename(folder / "aside.db")
        try:
            rest = list(lines)
        finally:
            (folder / "aside.db").rename(folder / "ledger.db")
    response_id = first.split('"id":"')[1].split('"')[0]
    book = Ledger(running.ledger)
    until(lambda: book.receipt(response_id) is not None)

    assert "data: [DONE]" in rest
    assert book.receipt(response_id).tokens > 16
    book.close()


def test_dead_replica_without_its_bundle_keeps_nobody_waiting(running: Service, bundle: Path, folder: Path) -> None:
    """No replica can start: requests, streams, models, console and playground are answered in time."""
    aside = bundle.rename(bundle.with_name("aside"))
    try:
        os.kill(replica_of(running).pid, signal.SIGKILL)
        at_once = ask(running)
        time.sleep(3)
        later = answers(running)
        console = _playground(running, folder)
    finally:
        aside.rename(bundle)
    until(lambda: is_healthy(running))

    assert 503 == at_once.status_code
    assert [503] * 4 == [each.status_code for each in later]
    assert "bundle_missing" in later[0].text and "the service's bundle is gone" in later[0].text
    assert [200, 503] == [each.status_code for each in console]
    assert 200 == ask(running).status_code


def test_replica_that_does_not_answer_keeps_nobody_waiting(running: Service) -> None:
    """It is stopped, and neither dead nor alive."""
    replica = replica_of(running)
    replica.suspend()
    try:
        told = [ask(running), ask(running, stream=True), health(running)]
    finally:
        replica.resume()
    until(lambda: is_healthy(running))

    assert [503] * 3 == [each.status_code for each in told]
    assert 200 == ask(running).status_code


def _playground(running: Service, folder: Path) -> list[httpx.Response]:
    """The console's page for an application's key, and a question that is asked there."""
    del folder
    with httpx.Client(base_url=running.address, timeout=AT_ONCE_S, follow_redirects=True) as browser:
        browser.post("/console/sign-in", data={"key": running.application})
        page = browser.get("/console/playground")
        token = page.text.split('name="csrf" value="')[1].split('"')[0]
        question = {"prompt": "Hello", "max_tokens": 4, "temperature": 0}
        asked = browser.post("/console/playground/answer", json=question, headers={"x-csrf-token": token})
        return [page, asked]
