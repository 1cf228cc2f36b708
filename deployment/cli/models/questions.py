"""Files of prompts, with or without responses, as `protoken trace --responses` and `evaluate --prompts` read them."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from attribution.errors import RecipeError
from attribution.files.untrusted import in_one_line
from attribution.model import FederatedModel


@dataclass(frozen=True)
class Question:
    """A prompt and the response to it; where that is None, the model is to be asked. `line` is that of the file."""

    line: int
    prompt: str
    response: str | None


@dataclass(frozen=True)
class Questions:
    """What a file holds, one or more of them, and the SHA-256 of its bytes."""

    questions: tuple[Question, ...]
    sha256: str


def read_questions(path: Path, kind: str) -> Questions:
    """The questions in a file of JSON lines, which is read once: it may be a pipe.

    Args:
        path: of the file.
        kind: what a line of it is called, as in "flagged response".

    Raises:
        RecipeError: naming the file, the line and the field.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from error
    questions = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            prompt, response = _question(f"{path}:{number}", line)
            questions.append(Question(number, prompt, response))
    if not questions:
        raise RecipeError(f"{path}: holds no {kind}")
    return Questions(tuple(questions), sha256(content).hexdigest())


def token_ids_of(
    model: FederatedModel, question: Question, *, raw: bool
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Token ids of a question and of its response, which is None where the question has none.

    Args:
        model: whose tokenizer and, if it has one, chat template are taken.
        question: to encode.
        raw: whether to take the prompt as it is, without the chat template.

    Raises:
        PromptError: the prompt cannot be encoded, or is certainly too long.
    """
    prompt, response = question.prompt, question.response
    templated = not raw and model.tokenizer.chat_template is not None
    ids = model.encode_chat([{"role": "user", "content": prompt}]) if templated else model.encode_text(prompt)
    answer = None if response is None else model.tokenizer(response, add_special_tokens=False)["input_ids"]
    return tuple(ids), None if answer is None else tuple(answer)


def _question(place: str, line: str) -> tuple[str, str | None]:
    try:
        document: Any = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        raise RecipeError(f"{place}: not JSON: {in_one_line(error)}") from error
    prompt = document.get("prompt") if isinstance(document, dict) else None
    response = document.get("response") if isinstance(document, dict) else None
    if not (isinstance(prompt, str) and prompt and (response is None or (isinstance(response, str) and response))):
        raise RecipeError(f'{place}: needs "prompt", a text, and may have "response", a text; neither empty')
    if any("\ud800" <= letter <= "\udfff" for letter in prompt + (response or "")):
        raise RecipeError(f"{place}: holds half of a surrogate pair, which is not text")
    return prompt, response
