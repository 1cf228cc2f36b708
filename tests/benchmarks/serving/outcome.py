"""From what was measured to figures with targets and to the table of everything. Pure."""

import statistics
from collections.abc import Callable, Iterator

from rich.table import Table

from tests.benchmarks.figures import Figure
from tests.benchmarks.serving.loads import Load, equal_texts
from tests.benchmarks.serving.record import (
    BFLOAT16,
    ENGINE,
    EVERY,
    MIDDLE,
    MODES,
    NARROW,
    OFF,
    PAPER,
    TENTH,
    WIDE,
    Record,
)

THROUGHPUT_TARGETS = {1: 1.0, 8: 1.0, 32: 1.0}
CREDITED_TARGETS = {1: 0.9, 8: 0.4, 32: 0.4}
COLUMNS = ("server", "streams", "tokens/s", "first token", "between p50", "p99", "end wait", "processor", "memory")


def figures_of(record: Record) -> list[Figure]:
    """The figures of design 13 that could be had, each the median of its pairs.

    None of those for which credit is to be sampled, where the service measured every response all the same.
    """
    unheeded = {name for name in (TENTH, BFLOAT16, OFF) if min(record.measured.get(name, [0.0])) == 1}
    loads = {place: load for place, load in record.loads.items() if place[1] not in unheeded}
    return [figure for figure in _figures(Record(loads)) if figure is not None]


def _figures(record: Record) -> Iterator[Figure | None]:
    usual = TENTH if record.of(TENTH, NARROW) else EVERY
    yield _paired(record, "between_tokens_service_over_engine", 1.10, (usual, ENGINE, NARROW), _between, at_least=False)
    for name, ours, targets in (
        ("throughput_vs_peer", TENTH, THROUGHPUT_TARGETS),
        ("credited_vs_peer", EVERY, CREDITED_TARGETS),
    ):
        for streams, target in targets.items():
            yield _paired(record, f"{name}_{streams}", target, (ours, "peer", streams), _speed)
    yield _paired(record, "attribution_on_over_off_8", 0.95, (PAPER, OFF, MIDDLE), _speed)
    yield _paired(record, "bfloat16_over_float32_32", 1.5, (BFLOAT16, TENTH, WIDE), _speed)
    if loads := record.of(EVERY, WIDE):
        ratios = [load.between_s(99) / load.between_s(50) for load in loads]
        detail = f"{EVERY}, {len(ratios)} times, {min(ratios):.2f}–{max(ratios):.2f}"
        yield Figure("between_tokens_p99_over_p50_32", statistics.median(ratios), 2.0, detail=detail)


def _speed(load: Load) -> float:
    return load.tokens_per_s


def _between(load: Load) -> float:
    return load.between_s(50)


def _paired(
    record: Record,
    name: str,
    target: float,
    who: tuple[str, str, int],
    value: Callable[[Load], float],
    *,
    at_least: bool = True,
) -> Figure | None:
    """The median over the pairs of a ratio of two servers; None where one of them was not measured."""
    server, other, streams = who
    pairs = []
    for pair in sorted({pair for pair, _, _ in record.loads}):
        peer = record.better_mode(pair, streams) if other == "peer" else record.load(pair, other, streams)
        ours = record.load(pair, server, streams)
        if ours is not None and peer is not None:
            pairs.append((value(ours), value(peer)))
    if not pairs:
        return None
    ratios = [ours / peer for ours, peer in pairs]
    middle = [statistics.median(values) for values in zip(*pairs, strict=True)]
    detail = f"{middle[0]:.4g} / {middle[1]:.4g}, {len(pairs)} pairs, {min(ratios):.3f}–{max(ratios):.3f}"
    return Figure(name, statistics.median(ratios), target, at_least=at_least, detail=detail)


def table_of(record: Record) -> Table:
    """Every server at every number of streams, medians of the pairs."""
    table = Table(title="what was measured")
    for column in (
        "server",
        "streams",
        "tokens/s",
        "first token",
        "between p50",
        "p99",
        "end wait",
        "processor",
        "memory",
    ):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, streams in dict.fromkeys((name, streams) for _, name, streams in record.loads):
        loads = record.of(name, streams)
        memory = record.memory.get(name)
        table.add_row(
            name,
            str(streams),
            f"{_median(loads, _speed):.1f}",
            f"{_median(loads, lambda load: load.first_token_s):.2f} s",
            f"{1000 * _median(loads, _between):.0f} ms",
            f"{1000 * _median(loads, lambda load: load.between_s(99)):.0f} ms",
            f"{1000 * _median(loads, lambda load: load.end_wait_s):.0f} ms",
            f"{1000 * _median(loads, lambda load: load.processor_s / load.tokens):.0f} ms/token",
            f"{statistics.median(memory) / 2**20:.0f} MiB" if memory else "",
        )
    return table


def _median(loads: list[Load], value: Callable[[Load], float]) -> float:
    return statistics.median(value(load) for load in loads)


def sanity_of(record: Record) -> list[str]:
    """Whether both answered alike: the share of equal texts, and how long responses were."""
    ours = [reply for (_, name, _), load in record.loads.items() if name == EVERY for reply in load.replies]
    lines = []
    for mode in (ENGINE, *MODES):
        theirs = [reply for (_, name, _), load in record.loads.items() if name == mode for reply in load.replies]
        if theirs:
            lines.append(f"equal texts, ours and {mode}: {equal_texts(ours, theirs):.1%}")
    for name, shares in record.measured.items():
        lines.append(f"{name}: {statistics.mean(shares):.1%} of the tokens were measured")
    tokens = [reply.tokens for load in record.loads.values() for reply in load.replies]
    lines.append(f"tokens of a response: {min(tokens)} to {max(tokens)}, {statistics.mean(tokens):.1f} on average")
    return lines
