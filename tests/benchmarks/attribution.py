"""What attribution costs, on SmolLM2-135M with six clients' rank-8 updates of the last third of the blocks.

`python -m tests.benchmarks.attribution [--runs N]`; the literal loop alone takes about a minute a run on 2 cores.
"""

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from attribution import Batch, FederatedModel, Sampling, attribute
from attribution.models import load_model, resolve_base
from attribution.recipe import DEFAULT_BASE
from attribution.updates import LowRank, Update, weighted_sum
from attribution.writing import Member, write_bundle
from tests.attribution.literal_reference import literal_paper_generate
from tests.benchmarks.figures import Figure, paired_ratio, print_figures

PROMPT = "Write a long story about a lighthouse keeper who learns to sail."
TOKENS, LITERAL_TOKENS, RANK = 64, 32, 8
console = Console(stderr=True)


def random_update(network: Any, seed: int) -> Update:
    """A rank-8 update of every projection in the last third, too small to change what is generated much."""
    generator = torch.Generator().manual_seed(seed)
    blocks = len(network.model.layers)
    low_rank = {}
    for name, module in network.named_modules():
        parts = name.split(".")
        if (
            isinstance(module, torch.nn.Linear)
            and parts[:2] == ["model", "layers"]
            and int(parts[2]) >= blocks * 2 // 3
        ):
            A = torch.randn(RANK, module.in_features, generator=generator) / module.in_features**0.5
            B = 0.02 * torch.randn(module.out_features, RANK, generator=generator)
            low_rank[name] = LowRank(A, B)
    return Update(low_rank)


def consortium(folder: Path, clients: int) -> FederatedModel:
    """A bundle of `clients` equal clients, written and loaded."""
    network = load_model(resolve_base(DEFAULT_BASE))
    members = []
    for number in range(clients):
        update = random_update(network, number)
        cumulative = weighted_sum([(1 / clients, update)])
        members.append(Member(f"client{number}", f"Client {number}", 1, 1 / clients, cumulative, update))
    write_bundle(folder, "bench", DEFAULT_BASE, 1, members)
    return FederatedModel.load(folder)


def ids_of(model: FederatedModel) -> list[int]:
    return model.encode_chat([{"role": "user", "content": PROMPT}])


def plain(model: FederatedModel, peer: Any, tokens: int) -> None:
    """The peer: cached greedy generation by transformers, on the same weights as it loads them."""
    ids = torch.tensor([ids_of(model)])
    output = peer.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    assert output.shape[1] == ids.shape[1] + tokens, "the prompt must not end before the tokens do"


def attributed(model: FederatedModel, tokens: int, **preset: Any) -> None:
    """Our step loop and attribution of the response."""
    batch = Batch(model)
    batch.join("row", ids_of(model), Sampling(max_new_tokens=tokens))
    while len(batch):
        batch.step()
    generation = batch.leave("row")
    assert len(generation.token_ids) == tokens
    attribute(model, generation, **preset)


def literal(model: FederatedModel, peer: Any, clients: dict[str, Any]) -> None:
    """The paper's loop: a whole forward and backward for each token, no cache, each client's layers on top."""
    literal_paper_generate(peer, clients, ids_of(model), LITERAL_TOKENS)


def whole_clients(model: FederatedModel) -> dict[str, Any]:
    """The clients' last-round models, each in full, as the literal loop wants them."""
    base = load_model(resolve_base(model.manifest.base.reference))
    clients = {}
    for client, update in model.bundle.last_round.items():
        clients[client] = copy.deepcopy(base)
        for name, low_rank in update.low_rank.items():
            clients[client].get_submodule(name).weight.data += low_rank.dense()
    return clients


def main() -> None:
    """Measure and print every figure of design 13 that concerns attribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="paired runs for each figure (default 5)")
    parser.add_argument("--skip-literal", action="store_true", help="leave out the slow literal loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        console.print("writing consortia of 6 and 55 clients…")
        six, many = consortium(Path(scratch) / "six", 6), consortium(Path(scratch) / "many", 55)
        peer = load_model(six.bundle.global_path)
        plain(six, peer, 8)
        for model in (six, many):
            attributed(model, 8)
            attributed(model, 8, method="paper")
        comparisons = [
            (
                "paper_over_plain",
                1.05,
                lambda: attributed(six, TOKENS, method="paper"),
                lambda: plain(six, peer, TOKENS),
            ),
            ("credit_over_plain", 1.25, lambda: attributed(six, TOKENS), lambda: plain(six, peer, TOKENS)),
            (
                "token_level_over_plain",
                4.0,
                lambda: attributed(six, TOKENS, token_level=True),
                lambda: plain(six, peer, TOKENS),
            ),
            ("clients55_over_clients6", 1.10, lambda: attributed(many, TOKENS), lambda: attributed(six, TOKENS)),
        ]
        figures = []
        for name, target, numerator, denominator in comparisons:
            console.print(f"measuring {name}…")
            value, detail = paired_ratio(numerator, denominator, options.runs)
            figures.append(Figure(name, value, target, detail=detail))
        if not options.skip_literal:
            console.print("measuring literal_over_paper…")
            clients = whole_clients(six)
            value, detail = paired_ratio(
                lambda: literal(six, peer, clients),
                lambda: attributed(six, LITERAL_TOKENS, method="paper"),
                options.runs,
            )
            figures.append(Figure("literal_over_paper", value, 20.0, at_least=True, detail=detail))
    print_figures("attribution", figures)


if __name__ == "__main__":
    main()
