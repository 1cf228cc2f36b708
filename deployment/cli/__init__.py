"""The `protoken` command: one module per noun, assembled here.

Every command takes `--json` where it prints data. Exit code 0 on success, 2 on wrong usage, and 1 otherwise, with one
line on stderr that names what is wrong. Where nobody foresaw what went wrong, PROTOKEN_TRACEBACK=1 shows where it did.

    books/    commands over the books: they need the ledger's database or a file, and no model
    models/   commands that load, build or check models
    service/  commands that start the service or show it
    options   options that several nouns of the command line share
    output    JSON or tables, progress bars, and the heat map of tokens
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from attribution.errors import AttributionError
from attribution.files.foreign import in_one_line
from deployment.cli.books import hold, keys, ledger, period, statement
from deployment.cli.models import attribute as attributing
from deployment.cli.models import consortium, evaluate
from deployment.cli.models import trace as tracing
from deployment.cli.service import dashboards, demo
from deployment.cli.service import serve as serving
from deployment.errors import ServiceError
from rewards.errors import RewardsError
from rewards.files.plain_text import one_line

__all__ = ["main"]

app = typer.Typer(
    name="protoken",
    help="Reward allocation for federated language models: who taught it, who earned what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(consortium.app, name="consortium")
app.add_typer(ledger.app, name="ledger")
app.add_typer(period.app, name="period")
app.add_typer(hold.app, name="hold")
app.add_typer(statement.app, name="statement")
app.add_typer(keys.app, name="keys")
app.command("attribute")(attributing.attribute_prompt)
app.command("trace")(tracing.trace_responses)
app.command("evaluate")(evaluate.evaluate)
app.command("serve")(serving.serve)
app.command("exporter")(serving.exporter)
app.command("dashboards")(dashboards.dashboards)
app.command("demo")(demo.demo)


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
