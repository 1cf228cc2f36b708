"""Every command with its first sentence, each imported when it is called; and how a command ends that fails."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from attribution.errors import AttributionError
from attribution.files.untrusted import in_one_line
from deployment.cli.on_demand import Deferred, OnDemand
from deployment.errors import ServiceError
from rewards.errors import RewardsError
from rewards.files.plain_text import one_line


class _Door(OnDemand):
    """Every command; what stands here is also the first sentence of its own help."""

    deferred = (
        Deferred(
            "attribute",
            "deployment.cli.models.attribute:attribute_prompt",
            "Generate an answer and trace each token to the client that taught it.",
            extra="attribution",
        ),
        Deferred(
            "trace",
            "deployment.cli.books.trace:trace_responses",
            "Rank the clients by their responsibility for flagged responses: to debug, or to find who planted "
            "something.",
        ),
        Deferred(
            "evaluate",
            "deployment.cli.models.evaluate:evaluate",
            "Run experiments and write one report of all results, or hold what a bundle pays against Shapley values.",
            extra="evaluation",
        ),
        Deferred(
            "serve",
            "deployment.cli.service.serve:serve",
            "Serve the consortium's model over HTTP until interrupted; every response is booked before it ends.",
            extra="serve",
        ),
        Deferred(
            "doctor",
            "deployment.cli.doctor.command:doctor",
            "Look at all that the service and the operator's commands use, and say what is wrong; changes nothing.",
        ),
        Deferred(
            "exporter",
            "deployment.cli.service.exporter:exporter",
            "Export the ledger as Prometheus series, apart from the service, until interrupted.",
            extra="serve",
        ),
        Deferred(
            "dashboards",
            "deployment.cli.service.dashboards:dashboards",
            "Write the Grafana boards as JSON files, the same on every machine.",
            extra="dashboards",
        ),
        Deferred(
            "demo",
            "deployment.cli.service.demo:demo",
            "Train a consortium, serve it, ask it, and pay its members.",
            extra="serve",
        ),
        Deferred(
            "consortium",
            "deployment.cli.models.consortium:app",
            "Build, import and check the consortium on disk, and put it in service.",
            extra="attribution",
        ),
        Deferred(
            "member",
            "deployment.cli.books.member:app",
            "A member's own: its signing key, its signed updates, and whether they are what is credited.",
        ),
        Deferred(
            "ledger",
            "deployment.cli.books.ledger:app",
            "The credit ledger: what is booked, and the signed log that proves it.",
        ),
        Deferred("period", "deployment.cli.books.period:app", "Preview and close settlement periods."),
        Deferred(
            "explain",
            "deployment.cli.books.explain:explain",
            "Show why a client, or the commons, is paid what it is: each line from credit to payout.",
        ),
        Deferred("hold", "deployment.cli.books.hold:app", "Hold back a client's payouts or a response's credit."),
        Deferred("statement", "deployment.cli.books.statement:app", "Issue and check clients' statements."),
        Deferred(
            "keys", "deployment.cli.books.keys:app", "Bearer keys of whoever calls the service, and its signing key."
        ),
    )


app = typer.Typer(
    name="protoken",
    cls=_Door,
    help="Reward allocation for federated language models: who taught it, who earned what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"protoken {version('protoken')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """What stands before a command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; whatever goes wrong becomes one line and exit code 1."""
    try:
        app(arguments)
    except (AttributionError, RewardsError, ServiceError) as error:
        _end(str(error))
    except Exception as error:
        if os.environ.get("PROTOKEN_TRACEBACK"):
            raise
        _end(_unforeseen(error))


def _end(sentence: str) -> NoReturn:
    print(one_line(f"protoken: {sentence}"), file=sys.stderr)  # noqa: T201 - the command line's one line
    sys.exit(1)


def _unforeseen(error: Exception) -> str:
    """What is known of a failure that is none of our own: a full disk says it itself, the rest is a fault of ours."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{in_one_line(error)} ({type(error).__name__}, unforeseen; PROTOKEN_TRACEBACK=1 shows where it arose)"
