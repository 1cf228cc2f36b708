"""The official OpenAI client, unmodified, against the running service with the real model."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from rewards.ledger.ledger import Ledger
from tests.deployment.metrics.scrapes import promtool_says
from tests.end_to_end.service import new_ledger, service
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow
QUESTION = [{"role": "user", "content": "What is the colour of the harbour bell?"}]


@pytest.fixture(scope="module")
def running(real_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with service(real_bundle, new_ledger(folder), folder / "serve.log") as up:
        yield up


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.address}/v1", api_key=running.application, max_retries=0) as made:
        yield made


def _wait_for_booking(running, *response_ids):
    """Who asks for no attribution has the answer before its receipt, and what the ledger holds would change later."""
    book = Ledger(running.ledger)
    until(lambda: all(book.is_booked(each) for each in response_ids), what=f"the receipts of {response_ids}")


def _numbers(amounts):
    return {account: int(text) for account, text in amounts.items()}


def test_a_completion_carries_attribution_and_is_booked(running, client):
    """A chat completion has per-token attribution and totals, and its receipt is in the ledger when it arrives."""
    answer = client.chat.completions.create(
        model="real", messages=QUESTION, max_tokens=6, temperature=0, extra_body={"attribution": "tokens"}
    )

    content = answer.choices[0].message.attribution["content"]
    totals = answer.usage.attribution
    receipt = Ledger(running.ledger).receipt(answer.id)
    assert answer.usage.completion_tokens == len(content) == receipt.tokens
    assert "".join(token["token"] for token in content) == answer.choices[0].message.content
    assert sum(receipt.amounts.values()) == receipt.tokens * 1_000_000
    assert _numbers(totals["credit"]) == receipt.amounts
    assert totals["shares"]["rider"] == 0


def test_a_stream_accumulates_attribution(running, client):
    """`.stream()` of openai-python ends with every token's attribution, and the receipt is booked before its end."""
    with client.chat.completions.stream(
        model="real", messages=QUESTION, max_tokens=48, temperature=0, extra_body={"attribution": "tokens"}
    ) as stream:
        final = stream.until_done().get_final_completion()

    content = final.choices[0].message.attribution["content"]
    receipt = Ledger(running.ledger).receipt(final.id)
    assert [token["index"] for token in content] == list(range(receipt.tokens))
    assert _numbers(final.usage.attribution["credit"]) == receipt.amounts


def test_text_completions_and_models_answer(running, client):
    """`/v1/models` names the consortium and `/v1/completions` continues a text without a chat template."""
    answer = client.completions.create(model="real", prompt="The harbour bell", max_tokens=3, temperature=0)
    _wait_for_booking(running, answer.id)

    assert [model.id for model in client.models.list()] == ["real"]
    assert answer.usage.completion_tokens <= 3


def test_a_long_prompt_is_answered_at_once_and_is_nobody_else_s_wait(running):
    """Its stream begins long before its first token, and another stream has its tokens in between."""
    begun, other, times, ids = threading.Event(), [], {}, set()

    def read(prompt, tokens, take):
        body = {"model": "real", "prompt": prompt, "max_tokens": tokens, "temperature": 2.0, "seed": 1, "stream": True}
        headers = {"Authorization": f"Bearer {running.application}"}
        with httpx.stream(
            "POST", f"{running.address}/v1/completions", json=body, headers=headers, timeout=PATIENCE_S
        ) as got:
            for line in got.iter_lines():
                take(line)
                if line.startswith('data: {"id"'):
                    ids.add(json.loads(line[6:])["id"])

    def take_other(line):
        if line.startswith('data: {"id"'):
            other.append(time.monotonic())
            begun.set()

    def take_long(line):
        if line:
            times.setdefault("line" if line.startswith(":") else "text", time.monotonic())

    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(read, "Once", 300, take_other)
        assert begun.wait(PATIENCE_S)
        since = time.monotonic()
        pool.submit(read, "The harbour bell is violet. " * 250, 2, take_long).result(PATIENCE_S)
        reading.result(PATIENCE_S)
    _wait_for_booking(running, *ids)

    waited = times["text"] - since
    assert times["line"] - since < waited / 3
    assert 5 <= sum(since < at < times["text"] for at in other)


def test_operators_read_shares_that_equal_the_ledger(running):
    """`/api/v1/shares` and `/api/v1/credit` tell an operator what the ledger holds; an application is refused."""
    book = Ledger(running.ledger)
    operator = {"Authorization": f"Bearer {running.operator}"}
    shares = httpx.get(f"{running.address}/api/v1/shares", headers=operator, timeout=PATIENCE_S).json()
    credit = httpx.get(f"{running.address}/api/v1/credit", headers=operator, timeout=PATIENCE_S).json()

    assert _numbers({each["account"]: each["credit"] for each in shares["accounts"]}) == book.balances()
    assert book.balances() == _numbers(credit["balances"])
    application = {"Authorization": f"Bearer {running.application}"}
    assert httpx.get(f"{running.address}/api/v1/shares", headers=application, timeout=PATIENCE_S).status_code == 403


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "other"}, 404),
        ({"max_tokens": 0}, 400),
        ({"max_tokens": 10**9}, 400),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400),
        ({"attribution": "everything"}, 400),
        ({"temperature": 3}, 400),
    ],
)
def test_bad_requests_book_nothing(running, change, status):
    """A request that cannot be served gets one clear error in OpenAI's shape and leaves the ledger as it was."""
    before = Ledger(running.ledger).last_sequence()
    body = {"model": "real", "messages": QUESTION, "max_tokens": 3} | change

    answer = httpx.post(
        f"{running.address}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {running.application}"},
        timeout=PATIENCE_S,
    )

    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert Ledger(running.ledger).last_sequence() == before


def test_the_service_shows_a_browser_what_it_can(running):
    """Through Serve's proxy too: `/` leads to the console, and `/docs` and its files come whole, with no key."""
    with httpx.Client(base_url=running.address, timeout=PATIENCE_S) as anybody:
        root = anybody.get("/", headers={"Accept": "text/html"})
        files = {name: anybody.get(f"/docs/static/{name}") for name in ("swagger-ui-bundle.js", "start.js")}

        assert (307, "/console/") == (root.status_code, root.headers["location"])
        assert 404 == anybody.get("/").status_code
        assert {200} == {anybody.get(path).status_code for path in ("/console/sign-in", "/docs", "/openapi.json")}
        for name, answer in files.items():
            assert int(answer.headers["content-length"]) == len(answer.content), name
        assert b"SwaggerUIBundle" in files["start.js"].content
        assert len(files["swagger-ui-bundle.js"].content) > 1_000_000


def test_the_exporter_agrees_with_the_ledger_and_promtool(running):
    """The exporter's counters equal the ledger's balances, and `promtool check metrics` finds nothing."""
    book = Ledger(running.ledger)
    text = httpx.get(running.metrics, timeout=PATIENCE_S).text

    assert f'protoken_generated_tokens_total{{model="real"}} {float(book.tokens())}' in text
    assert "protoken_request_duration_seconds_bucket" in text
    code, _, problems = promtool_says(text)
    assert (code, problems) == (0, "")


def test_a_period_is_closed_and_its_statement_verified(running, client, tmp_path):
    """Over HTTP: close, seal, fetch a member's statement; the command line checks it with the public key alone."""
    answer = client.completions.create(model="real", prompt="The harbour bell is", max_tokens=4)
    _wait_for_booking(running, answer.id)
    api = f"{running.address}/api/v1"
    headers = {"Authorization": f"Bearer {running.operator}"}
    body = {"policy": {"currency": "EUR", "pool": 10_000}}
    closed = httpx.post(f"{api}/periods/first/close", json=body, headers=headers, timeout=PATIENCE_S)
    again = httpx.post(f"{api}/periods/first/close", json=body, headers=headers, timeout=PATIENCE_S)
    sealed = httpx.post(f"{api}/log/seal", headers=headers, timeout=PATIENCE_S).raise_for_status().json()
    (key,) = httpx.get(f"{api}/log/keys", headers=headers, timeout=PATIENCE_S).raise_for_status().json()["data"]
    statement = httpx.get(f"{api}/statements/first/ada", headers=headers, timeout=PATIENCE_S).raise_for_status()
    (tmp_path / "ada.json").write_bytes(statement.content)
    (tmp_path / "public.key").write_text(key["public"])
    command = [sys.executable, "-m", "deployment.cli", "statement", "verify", tmp_path / "ada.json"]
    command += ["--public-key", tmp_path / "public.key"]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (201, 409) == (closed.status_code, again.status_code)
    assert 10_000 == sum(int(line["payout"]) for line in closed.json()["settlement"]["lines"])
    assert "real/ledger" == sealed["origin"]
    assert (0, 5) == (verified.returncode, verified.stdout.count("✓"))
