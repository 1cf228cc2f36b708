"""What an application kept of an exchange is read as it went over the wire, and anything else is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from deployment.errors import RecomputationError
from deployment.replica.messages import ChatMessage, PromptIds
from deployment.replica.scoring.exchange import read_answer, read_request, read_text

CHAT, TEXT = "chatcmpl-" + "a" * 32, "cmpl-" + "b" * 32
MESSAGES = [{"role": "developer", "content": "be short"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def kept(folder: Path, document: Any) -> Path:
    """A file of that document."""
    (folder / "kept.json").write_text(json.dumps(document))
    return folder / "kept.json"


def test_a_request_is_read_as_the_service_reads_it(tmp_path):
    """Parts of text are joined, `developer` is the system, and a prompt may be ids; nothing of it is in its print."""
    chat = read_request(kept(tmp_path, {"model": "m", "messages": MESSAGES, "stop": "x"}), CHAT)
    text = read_request(kept(tmp_path, {"model": "m", "prompt": [[5, 6]], "temperature": 0.001}), TEXT)

    assert (ChatMessage("system", "be short"), ChatMessage("user", "hi")) == chat.prompt
    assert ("m", 1.0, ("x",)) == (chat.model, chat.temperature, chat.stop)
    assert (PromptIds((5, 6)), 0.0) == (text.prompt, text.temperature)
    assert "be short" not in repr(chat)


@pytest.mark.parametrize(
    ("choice", "text", "ids"),
    [
        ({"message": {"content": "a b"}}, "a b", None),
        ({"message": {"content": "a", "attribution": {"content": [{"token_id": 4}, {"token_id": 2}]}}}, "a", (4, 2)),
        ({"text": "a", "token_ids": [7, 2]}, "a", (7, 2)),
        ({"text": "a", "logprobs": {"tokens": ["token_id:9", "token_id:2"]}}, "a", (9, 2)),
        ({"text": "a", "logprobs": {"tokens": [" a"]}}, "a", None),
        ({"text": "a", "attribution": {"content": [{"token_id": 3}]}}, "a", (3,)),
    ],
)
def test_ids_are_taken_from_wherever_they_were_told(tmp_path, choice, text, ids):
    """By vLLM's fields, or by attribution of tokens; else there are none."""
    answer = read_answer(kept(tmp_path, {"id": CHAT, "choices": [{"index": 0, **choice}]}), CHAT)

    assert (text, ids) == (answer.text, answer.token_ids)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"id": TEXT, "choices": []}, "is not the answer of"),
        ({"error": {"message": "x"}}, "is not the answer of"),
        ({"id": CHAT, "choices": []}, "is no whole answer of this service"),
        ({"id": CHAT, "choices": [{"index": 0, "message": {"content": None}}]}, "is no whole answer of this service"),
        ({"id": CHAT, "choices": [{"index": 0, "delta": {}}]}, "is no whole answer of this service"),
        (
            {"id": CHAT, "choices": [{"index": 0, "message": {"tool_calls": [{}]}}]},
            "calls of tools",
        ),
        ([], "must hold one JSON object"),
    ],
)
def test_what_is_no_answer_of_it_is_refused(tmp_path, document, message):
    """An error, another response's answer, a chunk of a stream, calls of tools."""
    with pytest.raises(RecomputationError, match=message):
        read_answer(kept(tmp_path, document), CHAT)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"model": "m", "messages": []}, "messages: "),
        ({"model": "m", "messages": [{"role": "tool", "content": "secret"}]}, "role 'tool' is not supported"),
        ({"model": "m", "prompt": "secret"}, "asks for a text completion, and"),
        ({"model": "m", "messages": MESSAGES, "temperature": "secret"}, "temperature: Input should be a valid number"),
    ],
)
def test_what_is_no_request_of_it_is_refused(tmp_path, document, message):
    """By the field at fault, and without what it holds."""
    with pytest.raises(RecomputationError, match=message) as raised:
        read_request(kept(tmp_path, document), CHAT)

    assert "secret" not in str(raised.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    """One that is missing, one that is no UTF-8, and one that is no JSON; a text stays as it is."""
    (tmp_path / "raw").write_bytes(b"\xff")
    (tmp_path / "text").write_bytes(b"a\r\nb\n")
    with pytest.raises(RecomputationError, match="none cannot be read: No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(RecomputationError, match="is not UTF-8: byte 0"):
        read_text(tmp_path / "raw")
    with pytest.raises(RecomputationError, match="is not JSON"):
        read_answer(tmp_path / "text", CHAT)

    assert "a\r\nb\n" == read_text(tmp_path / "text").text
