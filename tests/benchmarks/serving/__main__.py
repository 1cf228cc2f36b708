"""`python -m tests.benchmarks.serving`: measure, print the tables, and one JSON line for each figure."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployment.errors import StartError
from tests.benchmarks.figures import print_figures
from tests.benchmarks.programs import ProgramError
from tests.benchmarks.serving.ours import end_in_order
from tests.benchmarks.serving.outcome import figures_of, sanity_of, table_of
from tests.benchmarks.serving.record import MIDDLE, NARROW, WIDE
from tests.benchmarks.serving.rounds import Plan, measure

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main(
    streams: Annotated[list[int], typer.Option(help="Concurrent streams; give it again for more.")] = [  # noqa: B006
        NARROW,
        MIDDLE,
        WIDE,
    ],
    pairs: Annotated[int, typer.Option(min=1, help="How often each server is measured, one after another.")] = 3,
    each: Annotated[int, typer.Option(min=1, help="Responses of each stream; there are four at least.")] = 2,
    tokens: Annotated[int, typer.Option(min=4, help="Tokens of each response.")] = 48,
    dtype: Annotated[str, typer.Option(help="Of the weights, ours and the peer's.")] = "float32",
    quick: Annotated[bool, typer.Option("--quick", help="One pair of one response each: a look, no figure.")] = False,
    bundle: Annotated[Path, typer.Option(help="What is served.")] = Path("var/demo/bundle"),
    peer: Annotated[Path, typer.Option(help="The peer's environment, made where it is missing.")] = Path("var/peer"),
) -> None:
    """Measure our service beside `transformers serve` on the same weights, by one client, at several concurrencies."""
    end_in_order()
    for name in THREADS:  # every server chooses for itself how many
        os.environ.pop(name, None)
    if not (bundle / "consortium.json").exists():
        raise typer.BadParameter(
            f"{bundle} holds no bundle; `make bench-serving` builds the demo's", param_hint="--bundle"
        )
    plan = Plan(bundle, peer, streams, 1 if quick else pairs, 1 if quick else each, tokens, dtype)
    try:
        record = measure(plan)
    except (ProgramError, StartError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    console = Console(width=150)
    console.print(table_of(record))
    for line in sanity_of(record):
        console.print(line)
    print_figures("serving", figures_of(record))


if __name__ == "__main__":
    typer.run(main)
