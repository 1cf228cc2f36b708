"""What attribution costs: E21, each figure a ratio to plain cached generation in the same run.

The updates are random and small, since cost does not depend on what was learned.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from attribution.attribute import attribute
from attribution.base.references import load_model, resolve_base
from attribution.bundle.updates import LowRank, Update, weighted_sum
from attribution.bundle.writing import Member, write_bundle
from attribution.decoding.decode import Batch
from attribution.evaluation.experiment import Experiment, ResultRows, Settings
from attribution.evaluation.harness import Harness, encode
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.model import FederatedModel
from attribution.records import Method, Sampling

PROMPT = "Write a long story about a lighthouse keeper who learns to sail."
_RANK = 8
_REFERENCE = 6, 64  # clients and tokens of the targets (design 13)


class CostSettings(Settings):
    """`clients` and `tokens` are the numbers tried; the first of `clients` is the reference, `runs` the pairs timed."""

    clients: tuple[int, ...] = Field(default=(6, 16, 55), min_length=1)
    tokens: tuple[int, ...] = Field(default=(32, 64, 128, 256), min_length=1)
    runs: int = Field(default=5, ge=1)

    @property
    def reference_tokens(self) -> int:
        """The length at which numbers of clients are compared: 64 where it is among those tried."""
        return _REFERENCE[1] if _REFERENCE[1] in self.tokens else self.tokens[0]


def random_consortium(base: str, folder: Path, clients: int) -> FederatedModel:
    """A bundle of equal clients with rank-8 updates of every projection in the last third, written and loaded."""
    network = load_model(resolve_base(base))
    members = []
    for number in range(clients):
        update = _random_update(network, number)
        cumulative = weighted_sum([(1 / clients, update)])
        members.append(Member(f"client{number}", f"Client {number}", 1, 1 / clients, cumulative, update))
    write_bundle(folder, "cost", base, 1, members)
    return FederatedModel.load(folder)


def _random_update(network: Any, seed: int) -> Update:
    """Too small to change much of what is generated."""
    generator = torch.Generator().manual_seed(seed)
    first = len(network.model.layers) * 2 // 3
    low_rank = {}
    for name, module in network.named_modules():
        parts = name.split(".")
        if isinstance(module, torch.nn.Linear) and parts[:2] == ["model", "layers"] and int(parts[2]) >= first:
            A = torch.randn(_RANK, module.in_features, generator=generator) / module.in_features**0.5
            B = 0.02 * torch.randn(module.out_features, _RANK, generator=generator)
            low_rank[name] = LowRank(A, B)
    return Update(low_rank)


def generate_plainly(model: FederatedModel, peer: Any, tokens: int) -> None:
    """The peer: cached greedy generation by transformers, on the same weights as it loads them, to exactly `tokens`."""
    ids = torch.tensor([encode(model, PROMPT)])
    peer.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
    )


def generate_attributed(
    model: FederatedModel, tokens: int, method: Method = "credit", *, token_level: bool = False
) -> None:
    """Our step loop and the attribution of the response, to exactly `tokens`."""
    batch = Batch(model)
    ends, model.end_token_ids = model.end_token_ids, set()
    try:
        batch.join("row", encode(model, PROMPT), Sampling(max_new_tokens=tokens))
        while len(batch):
            batch.step()
    finally:
        model.end_token_ids = ends
    attribute(model, batch.leave("row"), method=method, token_level=token_level)


def paired_ratio(numerator: Callable[[], object], denominator: Callable[[], object], runs: int) -> dict[str, float]:
    """Median, least and greatest of time(numerator) / time(denominator), in pairs back to back, alternating order."""
    ratios, seconds = [], {numerator: [], denominator: []}  # type: ignore[var-annotated]
    for run in range(runs):
        for each in (numerator, denominator) if run % 2 else (denominator, numerator):
            started = time.perf_counter()
            each()
            seconds[each].append(time.perf_counter() - started)
        ratios.append(seconds[numerator][-1] / seconds[denominator][-1])
    return {
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "greatest": max(ratios),
        "seconds": statistics.median(seconds[numerator]),
        "peer_seconds": statistics.median(seconds[denominator]),
    }


def _cases(settings: CostSettings, _: Harness) -> list[str]:
    return [f"clients-{clients}" for clients in settings.clients] + ["clients"]


def _run(case: str, settings: CostSettings, harness: Harness) -> ResultRows:
    with harness.scratch("cost-first") as first, harness.scratch("cost-second") as second:
        if case == "clients":
            fewest, most = settings.clients[0], settings.clients[-1]
            few, many = (
                random_consortium(harness.base, folder, clients)
                for folder, clients in ((first, fewest), (second, most))
            )
            return _many_over_few(few, many, settings)
        return _over_plain(random_consortium(harness.base, first, int(case.rpartition("-")[2])), settings, harness)


def _many_over_few(few: FederatedModel, many: FederatedModel, settings: CostSettings) -> ResultRows:
    for model in (few, many):
        generate_attributed(model, 8)
    pair = paired_ratio(
        lambda: generate_attributed(many, settings.reference_tokens),
        lambda: generate_attributed(few, settings.reference_tokens),
        settings.runs,
    )
    length = settings.reference_tokens
    return [{"what": "most clients / fewest", "clients": settings.clients[-1], "tokens": length, **pair}]


def _over_plain(model: FederatedModel, settings: CostSettings, harness: Harness) -> ResultRows:
    """Each preset over plain generation: at all lengths for the first number of clients, else at the reference one."""
    peer = load_model(model.bundle.global_path)
    clients = len(model.client_ids)
    presets: Mapping[str, Callable[[int], None]] = {
        "paper": lambda tokens: generate_attributed(model, tokens, "paper"),
        "credit": lambda tokens: generate_attributed(model, tokens),
        "credit, token-level": lambda tokens: generate_attributed(model, tokens, token_level=True),
    }
    lengths = settings.tokens if clients == settings.clients[0] else (settings.reference_tokens,)
    generate_plainly(model, peer, 8)
    harness.progress.start(f"timing {clients} clients", len(presets) * len(lengths))
    rows: ResultRows = []
    for tokens in lengths:
        for what, run in presets.items():
            run(8)
            pair = paired_ratio(lambda: run(tokens), lambda: generate_plainly(model, peer, tokens), settings.runs)  # noqa: B023
            rows.append({"what": what, "clients": clients, "tokens": tokens, **pair})
            harness.progress.advance()
    return rows


def _summary(settings: CostSettings, cases: Mapping[str, ResultRows]) -> Summary:
    rows = [row for each in cases.values() for row in each]
    targets = {"paper": 1.05, "credit": 1.25, "credit, token-level": 4.0}
    figures = [_figure(f"{row['what']} over plain, {row['clients']} clients, {row['tokens']} tokens", row,
                       targets[row["what"]] if _is_reference(row) else None)
               for row in rows if row["what"] in targets]  # fmt: skip
    figures += [
        _figure(f"{row['clients']} clients over {settings.clients[0]}, credit", row, 1.10)
        for row in rows
        if row["what"] not in targets
    ]
    return Summary(figures=figures, plots=_plots(rows, settings, list(targets)), notes=[
        (f"Each ratio is the median of {settings.runs} pairs timed back to back, the interval the least and the"
        " greatest. The peer is transformers' `generate` with its cache, in float32, on the same weights."),
        f"Updates of the last third of the blocks, rank {_RANK}, one stream.",
    ])  # fmt: skip


def _is_reference(row: Mapping[str, Any]) -> bool:
    return (row["clients"], row["tokens"]) == _REFERENCE


def _figure(name: str, row: Mapping[str, Any], target: float | None) -> Figure:
    return Figure(
        name=name, value=row["ratio"], n=1, unit="ratio", low=row["least"], high=row["greatest"], target=target,
        note=f"{row['seconds']:.2f} s over {row['peer_seconds']:.2f} s",
    )  # fmt: skip


def _plots(rows: ResultRows, settings: CostSettings, presets: Sequence[str]) -> list[Plot]:
    def series(axis: str, wanted: Callable[[Mapping[str, Any]], bool]) -> dict[str, list[tuple[float, float]]]:
        return {
            preset: [(float(row[axis]), row["ratio"]) for row in rows if row["what"] == preset and wanted(row)]
            for preset in presets
        }

    first = settings.clients[0]
    return [
        Plot(name="overhead-by-tokens", title=f"Cost over plain generation by length, {first} clients", kind="lines",
             x_label="tokens generated", y_label="time / plain generation", target=1.0,
             series=series("tokens", lambda row: row["clients"] == first)),
        Plot(name="overhead-by-clients", title="Cost over plain generation by clients", kind="lines",
             x_label="clients", y_label="time / plain generation", target=1.0,
             series=series("clients", lambda row: row["tokens"] == settings.reference_tokens)),
    ]  # fmt: skip


COST = Experiment(CostSettings, _cases, _run, _summary)
