"""`python -m tests.benchmarks.mixed_load`: the load, kills, a publish, and what the books say; prints its seed."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from attribution.bundle.bundle import manifest_of
from tests.benchmarks.figures import Figure, print_figures
from tests.benchmarks.mixed_load.callers import Caller, Seen
from tests.benchmarks.mixed_load.killing import Family
from tests.benchmarks.mixed_load.publishing import Publishing, next_round
from tests.benchmarks.mixed_load.verdict import await_bookings, figures_of_books
from tests.benchmarks.serving.client import Server
from tests.benchmarks.serving.ours import end_in_order, our_service
from tests.benchmarks.serving.rounds import say

TELLING_S = 30.0


def main(
    minutes: Annotated[float, typer.Option(min=0.5, help="How long the load lasts.")] = 10.0,
    kill_every: Annotated[float, typer.Option(min=5, help="Seconds between two kills.")] = 30.0,
    callers: Annotated[int, typer.Option(min=1, help="Applications that ask at once.")] = 8,
    seed: Annotated[int | None, typer.Option(help="Of what is asked and killed; a new one each time.")] = None,
    bundle: Annotated[Path, typer.Option(help="What is served.")] = Path("var/demo/bundle"),
) -> None:
    """Minutes of every kind of request, replicas killed, a round published: what was seen whole is booked, once."""
    end_in_order()
    seed = Random().randrange(2**32) if seed is None else seed
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as scratch, our_service(bundle, {}) as server:
        second = next_round(bundle, Path(scratch).absolute() / "second")
        seen, family = Seen(), Family(server.pid)
        publishing = Publishing((_hash_of(bundle), _hash_of(second)))
        changing = publishing.publish_and_take_back(second, server.ledger, 60 * minutes)
        asyncio.run(_load(server, seen, family, 60 * minutes, kill_every, callers, seed, changing))
        await_bookings(server.ledger, seen)
        figures = list(figures_of_books(server.ledger, seen, publishing))
    for what, count in sorted(seen.counts.items()):
        say(f"{count:6d} {what}")
    for odd in seen.odd[:20]:
        say(f"odd: {odd}")
    tried = f"{family.kills} kills, {sum(seen.counts.values())} answers"
    figures.append(Figure("mixed_odd_answers", len(seen.odd), 0, detail=tried))
    most = family.most_bytes(60 * minutes, 0.0, 1.0) / 2**20
    growth = family.growth(60 * minutes)
    figures.append(Figure("mixed_memory_growth", growth, 1.1, detail=f"end / second minute, {most:.0f} MiB"))
    print_figures("mixed", figures)


def _hash_of(bundle: Path) -> str:
    return manifest_of(bundle).global_.sha256


async def _load(
    server: Server,
    seen: Seen,
    family: Family,
    total_s: float,
    kill_every: float,
    callers: int,
    seed: int,
    changing: Coroutine[None, None, None],
) -> None:
    """Callers, kills and a change of round for so long; callers then end what they have under way, undisturbed."""
    deadline = asyncio.get_running_loop().time() + total_s
    disturbing = [
        asyncio.create_task(family.kill_again_and_again(kill_every, Random(seed))),
        asyncio.create_task(family.watch()),
        asyncio.create_task(changing),
    ]
    calling = [asyncio.create_task(Caller(server, seen, seed + number).call(deadline)) for number in range(callers)]
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(min(left, TELLING_S))
        say(f"{len(seen.whole)} seen whole, {family.kills} kills, {max(left - TELLING_S, 0):.0f} s to go")
    for task in disturbing:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await asyncio.gather(*calling)


if __name__ == "__main__":
    typer.run(main)
