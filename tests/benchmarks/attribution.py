"""What attribution costs, on SmolLM2-135M with six clients' rank-8 updates of the last third of the blocks.

`python -m tests.benchmarks.attribution [--runs N]`; the literal loop alone takes about a minute a run on 2 cores.
`protoken evaluate E21` measures the same at more lengths and numbers of clients.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from attribution.base.references import load_model, resolve_base
from attribution.evaluation.experiments.cost import (
    PROMPT,
    generate_attributed,
    generate_plainly,
    paired_ratio,
    random_consortium,
)
from attribution.evaluation.harness import encode
from attribution.model import FederatedModel
from attribution.training.recipe import DEFAULT_BASE
from tests.attribution.scoring.literal_reference import literal_paper_generate
from tests.benchmarks.figures import Figure, print_figures

TOKENS, LITERAL_TOKENS = 64, 32
console = Console(stderr=True)


def literal(model: FederatedModel, peer: Any, clients: dict[str, Any]) -> None:
    """The paper's loop: a whole forward and backward for each token, no cache, each client's layers on top."""
    literal_paper_generate(peer, clients, encode(model, PROMPT), LITERAL_TOKENS)


def whole_clients(model: FederatedModel) -> dict[str, Any]:
    """The clients' last-round models, each in full, as the literal loop wants them."""
    base = load_model(resolve_base(model.manifest.base.reference))
    clients = {}
    for client, update in model.bundle.last_round.items():
        clients[client] = copy.deepcopy(base)
        for name, low_rank in update.low_rank.items():
            clients[client].get_submodule(name).weight.data += low_rank.dense()
    return clients


def measured(
    name: str,
    target: float,
    numerator: Callable[[], object],
    denominator: Callable[[], object],
    runs: int,
    *,
    at_least: bool = False,
) -> Figure:
    console.print(f"measuring {name}…")
    pair = paired_ratio(numerator, denominator, runs)
    seconds = f"{pair['seconds']:.2f} s / {pair['peer_seconds']:.2f} s"
    detail = f"{seconds}, {runs} pairs, {pair['least']:.3f}–{pair['greatest']:.3f}"
    return Figure(name, pair["ratio"], target, at_least=at_least, detail=detail)


def main() -> None:
    """Measure and print every figure of design 13 that concerns attribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="paired runs for each figure (default 5)")
    parser.add_argument("--skip-literal", action="store_true", help="leave out the slow literal loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        console.print("writing consortia of 6 and 55 clients…")
        six = random_consortium(DEFAULT_BASE, Path(scratch) / "six", 6)
        many = random_consortium(DEFAULT_BASE, Path(scratch) / "many", 55)
        peer = load_model(six.bundle.global_path)
        generate_plainly(six, peer, 8)
        for model in (six, many):
            generate_attributed(model, 8)
            generate_attributed(model, 8, "paper")

        def peer_run() -> None:
            generate_plainly(six, peer, TOKENS)

        def credit() -> None:
            generate_attributed(six, TOKENS)

        figures = [
            measured(
                "paper_over_plain", 1.05, lambda: generate_attributed(six, TOKENS, "paper"), peer_run, options.runs
            ),
            measured("credit_over_plain", 1.25, credit, peer_run, options.runs),
            measured(
                "token_level_over_plain",
                4.0,
                lambda: generate_attributed(six, TOKENS, token_level=True),
                peer_run,
                options.runs,
            ),
            measured("clients55_over_clients6", 1.10, lambda: generate_attributed(many, TOKENS), credit, options.runs),
        ]
        if not options.skip_literal:
            clients = whole_clients(six)
            figures.append(
                measured(
                    "literal_over_paper",
                    20.0,
                    lambda: literal(six, peer, clients),
                    lambda: generate_attributed(six, LITERAL_TOKENS, "paper"),
                    options.runs,
                    at_least=True,
                )
            )
    print_figures("attribution", figures)


if __name__ == "__main__":
    main()
