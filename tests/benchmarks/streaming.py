"""`make bench-streaming`: what a streamed token takes of the processors beside the model, process by process.

The tokens come from an engine in a process of its own that works for nothing: all streams get a token at the same
moments, as a batch on a GPU would give them. It tells true log-probabilities where it is asked, as the service compares
them with its bundle's before it serves.
"""

import asyncio
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import httpx
import psutil
import torch
import typer
from transformers import AutoModelForCausalLM

from tests.attribution.consortia import base_model, updates, write_consortium
from tests.benchmarks.figures import Figure, print_figures
from tests.benchmarks.serving.client import Server
from tests.benchmarks.serving.ours import end_in_order, our_service
from tests.deployment.replica.engines.fake_engine import NAME, FakeEngine, Item, chunk, ids_for, usage
from tests.waiting import until

TARGET_MS = 1.5
SURE = 10  # answers in a row, after which the engine is compared
PARTS = {":replica": "replica", ":ingress": "ingress", "ProxyActor": "proxy"}


def main(
    streams: Annotated[int, typer.Option(help="Concurrent streams.")] = 32,
    rate: Annotated[float, typer.Option(help="Tokens a second of each.")] = 8.0,
    tokens: Annotated[int, typer.Option(help="Tokens of each.")] = 100,
    times: Annotated[int, typer.Option(min=1, help="How often it is measured.")] = 3,
) -> None:
    """Measure the processor time of the service's processes for each token that they pass on."""
    end_in_order()
    with tempfile.TemporaryDirectory() as name:
        model = base_model("llama", max_position_embeddings=2048)
        bundle = write_consortium(Path(name) / "bundle", model, updates(model))
        with _engine(bundle / "global", rate) as url:
            engine = {"engine_kind": "openai", "engine_url": url, "engine_model": NAME}
            with our_service(
                bundle, {"credit_fraction": "0.000001", "max_batch": str(max(streams, 32)), **engine}
            ) as ours:
                _let_it_be_compared(ours)
                measured = sorted(
                    (_milliseconds(ours, streams, tokens) for _ in range(times)), key=lambda each: each.total()
                )
    middle = measured[len(measured) // 2]
    detail = ", ".join(f"{part} {milliseconds:.2f}" for part, milliseconds in middle.most_common())
    print_figures("streaming", [Figure("processor_ms_a_token", middle.total(), TARGET_MS, False, detail)])


@contextmanager
def _engine(weights: Path, rate: float) -> Iterator[str]:
    """The engine's address; it gives each stream so many tokens a second."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, weights, 1 / rate), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(told: Connection, weights: Path, step_s: float) -> None:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)

    def speak(body: dict[str, Any]) -> Iterator[Item]:
        ids = ids_for(body)
        is_asked = body.get("logprobs") is not None
        logprobs = _logprobs(model, body["prompt"], ids) if is_asked else [None] * len(ids)
        for n, (token, logprob) in enumerate(zip(ids, logprobs, strict=True)):
            if not is_asked:
                yield step_s - time.monotonic() % step_s
            prompt = {"prompt_token_ids": body["prompt"]} if n == 0 else {}
            end = {"finish_reason": "length"} if n == len(ids) - 1 else {}
            yield chunk([token], "x", **prompt, **end, **_told(token, logprob))
        yield usage(len(ids))

    engine = FakeEngine()
    engine.script = speak
    engine.start()
    told.send(engine.url)
    told.poll(None)


def _logprobs(model: Any, prompt: list[int], ids: list[int]) -> list[float]:
    """Of each of the ids behind those before it."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids[:-1]]])).logits[0, len(prompt) - 1 :]
    of_all = torch.log_softmax(logits.double(), -1)
    return [float(row[token]) for row, token in zip(of_all, ids, strict=True)]


def _told(token: int, logprob: float | None) -> dict[str, Any]:
    if logprob is None:
        return {}
    name = f"token_id:{token}"
    return {"logprobs": {"tokens": [name], "token_logprobs": [logprob], "top_logprobs": [{name: logprob}]}}


def _let_it_be_compared(server: Server) -> None:
    answers: list[bool] = []

    def is_sure() -> bool:
        headers = {"Authorization": f"Bearer {server.key}"}
        body = {"model": server.model, "prompt": "x", "max_tokens": 1}
        answers.append(httpx.post(f"{server.address}/completions", json=body, headers=headers, timeout=60).is_success)
        return len(answers) >= SURE and all(answers[-SURE:])

    until(is_sure, what="the comparison of the engine with the bundle")


def _milliseconds(server: Server, streams: int, tokens: int) -> Counter[str]:
    """Of processors, for each token: of each part of the service."""
    before = _seconds(server.pid)
    asyncio.run(_drive(server, streams, tokens))
    spent: Counter[str] = Counter()
    for (_, part), seconds in (_seconds(server.pid) - before).items():
        spent[part] += 1000 * seconds / (streams * tokens)
    return spent


def _seconds(pid: int) -> Counter[tuple[int, str]]:
    """Of processors, that the service and its descendants took so far, by process and part."""
    service = psutil.Process(pid)
    spent: Counter[tuple[int, str]] = Counter()
    for process in (service, *service.children(recursive=True)):
        times, command = process.cpu_times(), " ".join(process.cmdline())
        part = next((name for mark, name in PARTS.items() if mark in command), "others")
        spent[process.pid, part] = times.user + times.system
    return spent


async def _drive(server: Server, streams: int, tokens: int) -> None:
    headers = {"Authorization": f"Bearer {server.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        bodies = (_body(server, number, tokens) for number in range(streams))
        await asyncio.gather(*(_read(session, f"{server.address}/completions", body) for body in bodies))


def _body(server: Server, number: int, tokens: int) -> Mapping[str, Any]:
    prompt = f"{number} bottles stand on the wall"
    return {"model": server.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}


async def _read(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> None:
    """Read a stream, of which every token is to come as a piece of its own."""
    async with session.post(url, json=body) as response:
        assert response.status == 200, await response.text()
        pieces = [line async for line in response.content if line.startswith(b"data: {")]
    assert len(pieces) > 0.9 * body["max_tokens"], f"{len(pieces)} pieces of {body['max_tokens']} tokens"


if __name__ == "__main__":
    typer.run(main)
