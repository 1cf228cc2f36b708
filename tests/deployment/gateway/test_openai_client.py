"""The official `openai` client, unmodified, against the app on a real port of loopback."""

import re
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from deployment.replica.messages import Failed
from rewards.ledger.ledger import Ledger
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.pages import pages
from tests.waiting import PATIENCE_S, until

MESSAGES = [{"role": "user", "content": "hello"}]
TOKENS = {"attribution": "tokens"}


@pytest.fixture
def client(address: str, application_key: str) -> Iterator[openai.OpenAI]:
    """An `openai` client of an application."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=application_key, max_retries=0) as client:
        yield client


def test_completion_carries_attribution(client: openai.OpenAI, ledger: Ledger) -> None:
    """A completion's message and usage give the attribution as attributes, and the request has an id."""
    made = client.chat.completions.create(model=CARD.name, messages=MESSAGES, extra_body=TOKENS)

    message = made.choices[0].message
    assert "Grüß Gott" == message.content
    assert "clinic" == message.attribution["content"][0]["clients"][0]["client"]
    assert 3_000_000 == sum(map(int, made.usage.attribution["credit"].values()))
    assert made._request_id
    assert ledger.receipt(made.id).payload_sha256 == made.usage.attribution["receipt_id"]


def test_raw_stream_carries_attribution(client: openai.OpenAI) -> None:
    """The chunks of a raw stream give text, then attribution, then usage."""
    stream = client.chat.completions.create(model=CARD.name, messages=MESSAGES, stream=True, extra_body=TOKENS)
    chunks = list(stream)

    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert "Grüß Gott" == "".join(delta.content or "" for delta in deltas)
    entries = [entry for delta in deltas for entry in (getattr(delta, "attribution", None) or {}).get("content", [])]
    assert ["Grüß", " ", "Gott"] == [entry["token"] for entry in entries]
    assert 0.25 == chunks[-1].usage.attribution["base_share"]


def test_accumulated_stream_keeps_all_attribution(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    """`.stream()` joins the chunks to one completion without losing an entry, also over several chunks of them."""
    engine.pieces = tuple("abcdefghij" * 15)
    with client.chat.completions.stream(model=CARD.name, messages=MESSAGES, extra_body=TOKENS) as stream:
        made = stream.get_final_completion()

    message = made.choices[0].message
    assert "abcdefghij" * 15 == message.content
    assert list(range(150)) == [entry["index"] for entry in message.attribution["content"]]
    assert "".join(engine.pieces) == "".join(entry["token"] for entry in message.attribution["content"])
    assert [1.0] * 150 == [
        entry["base_share"] + sum(part["share"] for part in entry["clients"])
        for entry in message.attribution["content"]
    ]
    assert 150_000_000 == sum(map(int, made.usage.attribution["credit"].values()))


def test_text_completion_carries_attribution(client: openai.OpenAI) -> None:
    """Text completions give it beside the text, whole and streamed."""
    made = client.completions.create(model=CARD.name, prompt="hello", extra_body=TOKENS)
    chunks = list(client.completions.create(model=CARD.name, prompt="hello", stream=True, extra_body=TOKENS))

    assert ("Grüß Gott", 3) == (made.choices[0].text, len(made.choices[0].attribution["content"]))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "Grüß Gott" == "".join(choice.text for choice in choices)
    (attribution,) = [choice.attribution for choice in choices if hasattr(choice, "attribution")]
    assert made.choices[0].attribution == attribution


def test_models_are_known_to_the_client(client: openai.OpenAI) -> None:
    """The client lists the model and retrieves it."""
    assert [CARD.name] == [model.id for model in client.models.list()]
    assert list(CARD.client_ids) == client.models.retrieve(CARD.name).clients


def test_errors_are_the_clients_own(client: openai.OpenAI, address: str, engine: ScriptedEngine) -> None:
    """Refusals become the client's typed exceptions, with parameter and code."""
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=CARD.name, messages=MESSAGES, reasoning_effort="high")
    assert ("reasoning_effort", "unsupported_parameter") == (bad.value.param, bad.value.code)

    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="ptk_no", max_retries=0).models.list()

    engine.pieces, engine.failure = ("x",), Failed(429, "all places are taken", "overloaded", retry_after_s=1)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model=CARD.name, messages=MESSAGES)


def test_client_waits_and_tries_again_when_told(address: str, application_key: str, engine: ScriptedEngine) -> None:
    """The client's own retries honour our Retry-After of a full queue."""
    engine.pieces, engine.failure = ("x",), Failed(429, "all places are taken", "overloaded", retry_after_s=1)
    with openai.OpenAI(base_url=f"{address}/v1", api_key=application_key, max_retries=1) as patient:
        since = time.monotonic()
        with pytest.raises(openai.RateLimitError):
            patient.completions.create(model=CARD.name, prompt="hello")

    assert 2 == len(engine.jobs)
    assert time.monotonic() - since >= 1


def test_failure_in_mid_stream_is_raised(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    """A stream that fails after it began raises in the client; the text before it had come."""
    engine.failure = Failed(500, "the response could not be attributed", "attribution_failed")
    seen = []
    with pytest.raises(openai.APIError) as failed:
        for chunk in client.chat.completions.create(model=CARD.name, messages=MESSAGES, stream=True):
            seen.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what came before the failure is kept

    assert ["", "Grüß", " "] == seen
    assert "attribution_failed" == failed.value.code


def test_disconnect_reaches_the_engine(
    address: str, application_key: str, engine: ScriptedEngine, ledger: Ledger
) -> None:
    """A caller that goes away in mid-stream cancels the job soon after; what it was sent is booked."""
    engine.pieces, engine.pause_s = ("x",) * 1000, 0.02
    headers = {"Authorization": f"Bearer {application_key}"}
    asked = {"model": CARD.name, "prompt": "hello", "stream": True}
    with httpx.stream("POST", f"{address}/v1/completions", json=asked, headers=headers, timeout=PATIENCE_S) as response:
        lines = response.iter_lines()
        for _ in range(5):
            next(lines)
    until(lambda: engine.left)

    assert [engine.jobs[0].response_id] == engine.left
    assert 3 <= ledger.tokens() < 100


def test_the_readme_s_program_runs(address: str, application_key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What README shows under "Call it" is a program that tells the text, the shares, and whose each token is."""
    (page,) = (page for page in pages() if page.path == "README.md")
    (program,) = re.findall(r"^```python\n(.*?)^```", page.text, flags=re.MULTILINE | re.DOTALL)
    for told, here in (("http://127.0.0.1:8000", address), ('"demo"', f'"{CARD.name}"')):
        assert told in program
        program = program.replace(told, here)

    exec(program, {"KEY": application_key})

    text, shares, *tokens = capsys.readouterr().out.splitlines()
    assert "Grüß Gott" == text
    assert shares.endswith(" 0.25")
    assert ["Grüß", " ", "Gott"] == [line.partition(" {")[0] for line in tokens]
    assert all("'clinic': " in line for line in tokens)
