"""`python -m tests.benchmarks.vllm`: vLLM alone, and behind our service with `credit` on a tenth of the responses."""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from deployment.errors import StartError
from tests.benchmarks.figures import Figure, print_figures
from tests.benchmarks.programs import ProgramError
from tests.benchmarks.serving.client import Server, drive
from tests.benchmarks.serving.ours import end_in_order, our_service
from tests.benchmarks.serving.prompts import responses_at, rows
from tests.benchmarks.vllm.environment import vllm_program
from tests.benchmarks.vllm.server import vllm_service

TARGET = 0.85
WARMING = ("2, 4, 8, 16, 32, 64, 128,", "1, 10, 100, 1000, 10000,")
WARMING_TOKENS = 8


def main(
    streams: Annotated[list[int], typer.Option(help="Concurrent streams; give it again for more.")] = [1, 8, 32],  # noqa: B006
    pairs: Annotated[int, typer.Option(min=1, help="How often both are measured, one after the other.")] = 3,
    each: Annotated[int, typer.Option(min=1, help="Responses of each stream; there are four at least.")] = 2,
    tokens: Annotated[int, typer.Option(min=4, help="Tokens of each response.")] = 48,
    dtype: Annotated[str, typer.Option(help="In which vLLM decodes; scores are float32.")] = "bfloat16",
    bundle: Annotated[Path, typer.Option(help="Whose weights are served.")] = Path("var/demo/bundle"),
    environment: Annotated[Path, typer.Option(help="vLLM's, made where it is missing.")] = Path("var/vllm"),
) -> None:
    """Measure vLLM alone and through our service, on the same weights and by one client, pair by pair."""
    end_in_order()
    os.environ.pop("OMP_NUM_THREADS", None)
    try:
        program = vllm_program(environment)
        with (
            tempfile.TemporaryDirectory() as scratch,
            vllm_service(program, bundle / "global", dtype, Path(scratch) / "vllm.log") as alone,
        ):
            ratios = _measure(bundle, alone, streams, pairs, each, tokens)
    except (ProgramError, StartError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    print_figures("vllm", [_figure(level, those) for level, those in ratios.items()])


def _measure(
    bundle: Path, alone: Server, streams: list[int], pairs: int, each: int, tokens: int
) -> dict[int, list[float]]:
    """Tokens a second through our service over those alone, by streams; never two at once, no prompt asked twice."""
    engine = {"kind": "openai", "url": alone.address, "model": alone.model}
    settings = {"credit_fraction": "0.1"} | {f"engine_{name}": value for name, value in engine.items()}
    ratios: dict[int, list[float]] = {level: [] for level in streams}
    fresh = rows()
    with our_service(bundle, settings) as through:
        for server in (alone, through):
            drive(server, WARMING, len(WARMING), WARMING_TOKENS)
        for pair in range(pairs):
            for level in streams:
                speeds = [_speed(server, fresh, level, each, tokens) for server in (alone, through)]
                ratios[level].append(speeds[1] / speeds[0])
                said = f"{speeds[0]:.1f} tokens/s alone, {speeds[1]:.1f} through our service"
                print(f"pair {pair + 1}, {level} streams: {said}", file=sys.stderr, flush=True)
    return ratios


def _speed(server: Server, fresh: Iterator[str], streams: int, each: int, tokens: int) -> float:
    return drive(server, list(islice(fresh, responses_at(streams, each))), streams, tokens).tokens_per_s


def _figure(streams: int, ratios: list[float]) -> Figure:
    detail = f"credit on a tenth, {len(ratios)} times, {min(ratios):.2f} to {max(ratios):.2f}"
    return Figure(f"through_service_over_vllm_{streams}", statistics.median(ratios), TARGET, True, detail)


if __name__ == "__main__":
    typer.run(main)
