"""`protoken trace --responses`: flagged texts in, clients ranked by responsibility out, as the model is now."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attribution.errors import RecipeError
from attribution.files.foreign import in_one_line
from attribution.model import FederatedModel
from attribution.tracing import FlaggedResponse, Trace, trace
from deployment.cli.output import print_json, say
from deployment.cli.progress import ProgressBar
from deployment.cli.tables import print_table


def trace_flagged(bundle: Path, responses: Path, max_new_tokens: int, *, raw: bool, as_json: bool) -> None:
    """Rank the clients by their responsibility for the flagged texts in a file.

    Raises:
        RecipeError: the file cannot be read, or a line of it is no flagged response; the line is named.
        BundleError: the bundle is missing, altered or malformed.
        PromptError: a prompt or response is empty or too long.
    """
    lines = _read(responses)
    model = FederatedModel.load(bundle)
    templated = not raw and model.tokenizer.chat_template is not None
    flagged = []
    for prompt, response in lines:
        ids = model.encode_chat([{"role": "user", "content": prompt}]) if templated else model.encode_text(prompt)
        answer = None if response is None else model.tokenizer(response, add_special_tokens=False)["input_ids"]
        flagged.append(FlaggedResponse(tuple(ids), None if answer is None else tuple(answer)))
    with ProgressBar() as progress:
        trace_of_all = trace(model, flagged, max_new_tokens=max_new_tokens, progress=progress)
    if as_json:
        print_json(asdict(trace_of_all))
    else:
        _show(trace_of_all)


def _read(path: Path) -> list[tuple[str, str | None]]:
    """The flagged prompts and responses.

    Raises:
        RecipeError: naming the file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from error
    responses = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            document: Any = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
            raise RecipeError(f"{path}:{number}: not JSON: {in_one_line(error)}") from error
        prompt = document.get("prompt") if isinstance(document, dict) else None
        response = document.get("response") if isinstance(document, dict) else None
        if not (isinstance(prompt, str) and prompt and (response is None or (isinstance(response, str) and response))):
            raise RecipeError(
                f'{path}:{number}: needs "prompt", a text, and may have "response", a text; neither empty'
            )
        if any("\ud800" <= letter <= "\udfff" for letter in prompt + (response or "")):
            raise RecipeError(f"{path}:{number}: holds half of a surrogate pair, which is not text")
        responses.append((prompt, response))
    if not responses:
        raise RecipeError(f"{path}: holds no flagged response")
    return responses


def _show(result: Trace) -> None:
    rows = [
        (
            suspect.client,
            f"{suspect.responsibility:.1%}",
            f"{suspect.confidence:.3f}",
            f"{suspect.top_in} of {result.responses}",
            f"{suspect.score:+.2f}",
            "–" if suspect.paper_share is None else f"{suspect.paper_share:.1%}",
        )
        for suspect in result.suspects
    ]
    columns = ("client", "responsible", "confidence", "on top in", "nats a response", "paper's share")
    print_table(f"{result.responses} flagged responses", columns, rows)
    say(f"gain over the base model {result.gain:+.2f} nats a response, base share {result.base_share:.1%}")
    say(result.verdict, style="bold")
