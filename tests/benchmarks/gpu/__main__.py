"""`python -m tests.benchmarks.gpu`: measure, print the table, and one JSON line for each figure."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import httpx
import torch
import typer
from rich.console import Console

from attribution.attribute import attribute
from attribution.base.references import save_model
from attribution.model import DType, FederatedModel
from tests.benchmarks.figures import Figure, print_figures
from tests.benchmarks.gpu.decoding import tokens_per_s
from tests.benchmarks.gpu.mixture import between_steps
from tests.benchmarks.gpu.model import LARGE, SMALL, Size, random_model, scored_in
from tests.benchmarks.gpu.scoring import EFFORT, GIB, cost_of, furthest, response_of, scores
from tests.benchmarks.gpu.vllm import TIMEOUT_S, engine_tokens_per_s, while_working

RESPONSES = 8
MOST_PASSES = 14.0
"""Of a score with 3 points: base and global once, then three times a pass and its derivative, which is two more."""
ENGINE_STREAMS = 16
console = Console(stderr=True, width=150)


def main(
    small: Annotated[bool, typer.Option("--small", help="A tiny model on the processor: a look, no figure.")] = False,
    vllm: Annotated[str | None, typer.Option(help="Address of a vLLM that serves the weights of --save.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the random weights to this folder, and end.")] = None,
) -> None:
    """What decoding, scoring and both at once cost on this machine's GPU, on random weights of an 8B model."""
    if not small and not torch.cuda.is_available():
        typer.echo("bench-gpu: torch finds no GPU here; --small runs the same on the processor", err=True)
        raise typer.Exit(1)
    size, device = (SMALL, "cpu") if small else (LARGE, "cuda")
    if save is not None:
        model = random_model(size, device)
        save_model(model.network, model.tokenizer, save)
        return
    console.print(f"on {'the processor' if small else torch.cuda.get_device_name()}")
    model = random_model(size, device)
    figures = [*_parity(size, model), *_speed(size, scored_in(model, "float16")), *_with_engine(size, model, vllm)]
    print_figures("gpu", figures)


def _parity(size: Size, model: FederatedModel) -> Iterator[Figure]:
    """Scores in each half dtype against those in float32, of the same weights."""
    positions = size.positions[0]
    exact = scores(scored_in(model, "float32"), RESPONSES, positions)
    halves: tuple[tuple[DType, float], ...] = (("float16", 0.02), ("bfloat16", 0.35))
    for dtype, target in halves:
        distance = furthest(exact, scores(scored_in(model, dtype), RESPONSES, positions))
        how = f"largest difference of a score / largest score, median of {RESPONSES} responses of {positions}"
        yield Figure(f"gpu_scores_{dtype}", distance, target, detail=how)


def _speed(size: Size, model: FederatedModel) -> Iterator[Figure]:
    """Decoding and scoring in the dtypes that are usual on a GPU."""
    tokens_per_s(model, 1, 2)
    alone = tokens_per_s(model, size.rows[0], size.tokens)
    for rows, target in zip(size.rows[1:], (8.0, 20.0), strict=True):
        many = tokens_per_s(model, rows, size.tokens)
        how = f"tokens a second: {many:.0f} / {alone:.0f} of one row"
        yield Figure(f"gpu_decoding_{rows}_over_1", many / alone, target, at_least=True, detail=how)
    for positions in size.positions:
        cost = cost_of(model, positions)
        how = f"{cost.seconds:.3f} s, a pass {cost.pass_seconds:.3f} s"
        yield Figure(f"gpu_credit_passes_{positions}", cost.passes, MOST_PASSES, detail=how)
        yield Figure(f"gpu_credit_gib_{positions}", cost.peak_bytes / GIB, 8.0, detail="beyond the weights")
    middle, late = between_steps(model, size.rows[1], size.tokens, size.positions[1])
    how = f"between steps of {size.rows[1]} rows while scoring: p50 {middle * 1e3:.1f} ms, p99 {late * 1e3:.1f} ms"
    yield Figure("gpu_mixed_p99_over_p50", late / middle, 2.0, detail=how)


def _with_engine(size: Size, model: FederatedModel, address: str | None) -> Iterator[Figure]:
    """A vLLM with a scorer beside it on the device, over the same vLLM alone."""
    if address is None:
        console.print("no --vllm: a vLLM beside a scorer is not measured")
        return
    name = httpx.get(f"{address}/v1/models").raise_for_status().json()["data"][0]["id"]
    client = partial(httpx.AsyncClient, base_url=address, timeout=TIMEOUT_S)
    measured = partial(engine_tokens_per_s, client, name, ENGINE_STREAMS, 4 * size.tokens)
    scorer = scored_in(model, "float16")
    work = partial(attribute, scorer, response_of(scorer, size.positions[0]), effort=EFFORT)
    measured()
    alone, beside = measured(), while_working(work, measured)
    how = f"tokens a second at {ENGINE_STREAMS}: {beside:.0f} / {alone:.0f}, with all that a scorer can do beside it"
    yield Figure("gpu_vllm_with_scorer", beside / alone, 0.5, at_least=True, detail=how)


app = typer.Typer(add_completion=False)
app.command()(main)


if __name__ == "__main__":
    app()
