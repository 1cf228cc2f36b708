"""`protoken trace`: flagged responses in, clients ranked by responsibility out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from attribution.errors import RecipeError
from attribution.files.foreign import in_one_line
from attribution.model import FederatedModel
from attribution.tracing import FlaggedResponse, Trace, trace
from deployment.cli.options import Json
from deployment.cli.output import ProgressBar, print_json, print_table, say


def trace_responses(
    bundle: Annotated[Path, typer.Option("--bundle", help="Folder of the consortium's bundle.")],
    responses: Annotated[
        Path,
        typer.Option(
            "--responses", help='JSON lines of {"prompt", "response"}; without a response the model is asked.'
        ),
    ],
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Tokens to generate where a line has no response.")
    ] = 64,
    raw: Annotated[
        bool, typer.Option("--raw", help="Give prompts as they are, without the model's chat template.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rank the clients by their responsibility for flagged responses: to debug, or to find who planted something."""
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
