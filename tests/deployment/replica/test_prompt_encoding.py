"""Prompts are read before their jobs wait for the model: what is too long, or takes long, is nobody else's wait."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from deployment.replica import prompt_encoding
from deployment.replica.active_request import ActiveRequest
from deployment.replica.messages import Admitted, ChatMessage, Event, Failed, Finished
from deployment.replica.prompt_encoding import SHORT_CHARACTERS, Encoder
from tests.deployment.replica.test_worker import Caller, Notes, job
from tests.waiting import PATIENCE_S, until


class SlowReader:
    """A model whose tokenizer waits for its gate with every long prompt."""

    def __init__(self, model: FederatedModel) -> None:
        self._model = model
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.context_length = model.context_length

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text."""
        if len(text) > SHORT_CHARACTERS:
            self.entered.set()
            assert self.gate.wait(PATIENCE_S)
        return self._model.encode_text(text[:20])


@pytest.fixture
def read() -> list[tuple[str, Failed | None]]:
    """The rows that were read."""
    return []


@pytest.fixture
def slow(model: FederatedModel, read: Any) -> Iterator[tuple[Encoder, SlowReader]]:
    """An encoder over it."""
    reader = SlowReader(model)
    done = lambda row, refused: read.append((row.job.response_id, refused))
    encoder = Encoder(reader, Batch(model), 8, done)  # type: ignore[arg-type]
    yield encoder, reader
    reader.gate.set()
    encoder.close()


def row(name: str, prompt: str) -> ActiveRequest:
    """A row that nobody listens to."""
    return ActiveRequest(job(name, prompt), lambda _: None)


def test_a_short_prompt_waits_for_no_long_one(slow: Any, read: Any) -> None:
    """While twenty long prompts are read, a short one is read at once."""
    encoder, reader = slow
    for number in range(20):
        encoder.take(row(f"long{number}", "x" * (SHORT_CHARACTERS + 1)))
    encoder.take(row("short", "tell me"))
    until(lambda: read)

    assert [("short", None)] == read
    reader.gate.set()
    until(lambda: len(read) == 21)


def test_a_prompt_that_waits_too_long_is_one_too_many(slow: Any, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience a job is told to come back, without its prompt being read."""
    encoder, reader = slow
    encoder.take(row("first", "x" * (SHORT_CHARACTERS + 1)))
    assert reader.entered.wait(PATIENCE_S)
    monkeypatch.setattr(prompt_encoding, "ENCODING_PATIENCE_S", 0.05)
    encoder.take(row("second", "x" * (SHORT_CHARACTERS + 1)))
    time.sleep(0.1)
    reader.gate.set()
    until(lambda: len(read) == 2)

    assert [("first", None), ("second", 429)] == [(name, refused and refused.status) for name, refused in read]


def test_a_job_is_admitted_once_its_prompt_is_read(worker: Any, ledger: Any) -> None:
    """A stream hears that it is admitted before anything else; one that cannot be answered never does."""
    heard: dict[str, list[Event]] = {"good": [], "bad": [], "whole": []}
    worker.submit(job("good", "tell me", 3, streamed=True), heard["good"].append)
    worker.submit(job("bad", "x" * 200, 3, streamed=True), heard["bad"].append)
    worker.submit(job("whole", "tell me", 3), heard["whole"].append)
    until(lambda: all(heard.values()))
    until(lambda: all(isinstance(heard[name][-1], Finished) for name in ("good", "whole")))

    assert isinstance(heard["good"][0], Admitted)
    assert [400] == [event.status for event in heard["bad"]]
    assert not any(isinstance(event, Admitted) for event in heard["whole"])


def test_long_prompts_that_are_refused_keep_nobody_waiting(
    worker: Any, ledger: Any, model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While twenty prompts that take a while to read are refused, a stream's tokens come as ever."""
    monkeypatch.setattr(model, "_most_bytes", None, raising=False)  # so that they are read to their end
    monkeypatch.setattr(prompt_encoding, "ENCODING_PATIENCE_S", PATIENCE_S)  # on a slow machine, too
    callers = [Caller(worker, job(f"r{n}", "lorem ipsum " * 20_000), ledger) for n in range(20)]
    since = time.monotonic()
    stream = Caller(worker, job("stream", "tell me", 60, streamed=True), ledger)
    stream.end()
    seconds = time.monotonic() - since
    assert {"context_length_exceeded"} == {caller.end().code for caller in callers}

    assert 60 == ledger.receipt("stream").tokens
    assert seconds < (time.monotonic() - since) / 2


def test_a_job_that_is_let_go_while_its_prompt_is_read_is_gone(
    worker: Any, ledger: Any, notes: Notes, model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as cancelled, takes no place, and books nothing."""
    gate, read = threading.Event(), model.encode_chat
    monkeypatch.setattr(model, "encode_chat", lambda chat: gate.wait(PATIENCE_S) and read(chat), raising=False)
    worker.submit(job("gone", (ChatMessage("user", "x" * 60_000),), 8), lambda _: None)
    worker.cancel("gone")
    gate.set()
    Caller(worker, job("next"), ledger).end()

    assert ["cancelled", "finished"] == notes.outcomes
    assert ["next"] == [receipt.response_id for receipt in ledger.receipts_after(0)]
