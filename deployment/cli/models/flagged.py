"""`protoken trace --responses`: flagged texts in, clients ranked by responsibility out, as the model is now."""

from dataclasses import asdict
from pathlib import Path

from attribution.model import FederatedModel
from attribution.tracing import FlaggedResponse, Trace, trace
from deployment.cli.models.questions import read_questions, token_ids_of
from deployment.cli.number_format import percent
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
    questions = read_questions(responses, "flagged response").questions
    model = FederatedModel.load(bundle)
    flagged = [FlaggedResponse(*token_ids_of(model, each, raw=raw)) for each in questions]
    with ProgressBar() as progress:
        trace_of_all = trace(model, flagged, max_new_tokens=max_new_tokens, progress=progress)
    if as_json:
        print_json(asdict(trace_of_all))
    else:
        _show(trace_of_all)


def _show(result: Trace) -> None:
    rows = [
        (
            suspect.client,
            percent(suspect.responsibility),
            f"{suspect.confidence:.3f}",
            f"{suspect.top_in} of {result.responses}",
            f"{suspect.score:+.2f}",
            "–" if suspect.paper_share is None else percent(suspect.paper_share),
        )
        for suspect in result.suspects
    ]
    columns = ("client", "responsible", "confidence", "on top in", "nats a response", "paper's share")
    print_table(f"{result.responses} flagged responses", columns, rows)
    say(f"gain over the base model {result.gain:+.2f} nats a response, base share {percent(result.base_share)}")
    say(result.verdict, style="bold")
