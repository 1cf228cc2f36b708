"""How far a response that is attributed again differs from what was booked, over HTTP and in small models.

`deployment.replica.scoring.recomputation` states its bounds by what this prints. Run by `make bench-recompute`: half an
hour of two processors.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch

from attribution.attribute import credit_in_pieces
from attribution.decoding.decode import Batch
from attribution.model import DType, FederatedModel
from attribution.records import Generation, Sampling
from attribution.scoring.interruptible import run
from deployment.cli.configs import configs_folder
from deployment.errors import RecomputationError
from deployment.replica.messages import PromptIds
from deployment.replica.scoring.exchange import ReceivedAnswer, SentRequest, read_answer, read_request
from deployment.replica.scoring.recomputation import Recomputation, recompute
from rewards.credit import receipt_amounts
from rewards.ledger.ledger import Ledger
from rewards.store.receipts import BookedReceipt
from tests.attribution.consortia import FAMILIES, base_model, updates, write_consortium
from tests.end_to_end.service import Service, new_ledger, service
from tests.waiting import until

QUESTIONS = configs_folder() / "demo" / "questions.jsonl"
BUNDLE = Path("var/demo/bundle")
AT_ONCE = (32, 8, 1)
NUMBERS: tuple[tuple[DType, DType], ...] = (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16"))
"""In which a response is decoded, and scored."""
DTYPES: tuple[DType, ...] = ("float32", "bfloat16")
WHOLE_S = 3600.0
LEVELS = ("none", "summary", "tokens")
FILLER = "The harbour keeps its ledgers in the tower, and the tower keeps its bell. "


@dataclass(frozen=True)
class Exchange:
    """A request, and the answer to it."""

    request: Mapping[str, Any]
    answer: Mapping[str, Any]


def bodies(model: str, number: int) -> list[dict[str, Any]]:
    """Requests of every kind: chats and texts, short and long prompts, greedy and sampled, to all levels."""
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    made = []
    for index in range(number):
        prompt = json.loads(lines[index % len(lines)])["prompt"]
        text = FILLER * (0, 0, 4, 16)[index % 4] + prompt
        asked = {"messages": [{"role": "user", "content": text}]} if index % 3 else {"prompt": text}
        sampled = {"temperature": (0.0, 0.0, 0.7, 1.0, 1.4)[index % 5], "seed": index}
        made.append(
            {
                "model": model,
                **asked,
                **sampled,
                "max_tokens": (6, 12, 24)[index % 3],
                "attribution": LEVELS[(index // 2) % 3],
                **({"return_token_ids": True} if index % 6 == 0 else {}),
            }
        )
    return made


def ask(running: Service, requests: Sequence[Mapping[str, Any]], at_once: int) -> list[Exchange]:
    """The answers to all of them, so many at once, once each is booked."""
    headers = {"Authorization": f"Bearer {running.application}"}

    def answer(body: Mapping[str, Any]) -> Exchange:
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        answer = httpx.post(running.address + path, json=body, headers=headers, timeout=WHOLE_S)
        return Exchange(body, answer.raise_for_status().json())

    with ThreadPoolExecutor(at_once) as pool, closing(Ledger(running.ledger)) as book:
        exchanges = list(pool.map(answer, requests))
        until(lambda: all(book.is_booked(each.answer["id"]) for each in exchanges), WHOLE_S, "the credit of them all")
    return exchanges


def again(model: FederatedModel, book: Ledger, exchange: Exchange, scratch: Path) -> Recomputation | None:
    """A response attributed again, from the bodies as an application keeps them; None where its text was not enough."""
    (scratch / "request.json").write_text(json.dumps(exchange.request))
    (scratch / "answer.json").write_text(json.dumps(exchange.answer))
    response_id = exchange.answer["id"]
    receipt = book.receipt(response_id)
    assert receipt is not None
    asked = read_request(scratch / "request.json", response_id)
    answer = read_answer(scratch / "answer.json", response_id)
    try:
        return recompute(model, receipt, asked, answer)
    except RecomputationError:
        assert answer.token_ids is None, "its ids are always enough"
        return None


def show(name: str, tried: Sequence[Recomputation | None]) -> None:
    """One line of the table."""
    made = [each for each in tried if each is not None]
    credit = sorted(each.credit_difference / each.receipt.tokens for each in made)
    scores = sorted(each.score_difference / each.receipt.tokens for each in made)
    tokens = sum(each.receipt.tokens for each in made)
    exact = sum(not any(each.differences.values()) for each in made)
    beyond = sum(not each.agrees for each in made)
    print(
        f"{name}: {len(made)} responses, {tokens} tokens, {exact} to the unit, {beyond} beyond the bounds, "
        f"{len(tried) - len(made)} in other tokens than its text's; "
        f"micro-credits a token: median {credit[len(credit) // 2]:.2f}, greatest {credit[-1]:.1f}; "
        f"nats a token: median {scores[len(scores) // 2]:.2g}, greatest {scores[-1]:.2g}",
        flush=True,
    )


def measure_service(bundle: Path, number: int) -> None:
    """What the demo's model comes to again, by the numbers it was served and scored in."""
    for serve_dtype, score_dtype in NUMBERS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            more = {"PROTOKEN_SERVE_DTYPE": serve_dtype, "PROTOKEN_SCORE_DTYPE": score_dtype}
            model = FederatedModel.load(bundle, dtype=score_dtype)
            with service(bundle, new_ledger(folder), folder / "serve.log", more=more) as running:
                for at_once in AT_ONCE:
                    exchanges = ask(running, bodies("demo", number), at_once)
                    with closing(Ledger(running.ledger)) as book:
                        made = [again(model, book, exchange, folder) for exchange in exchanges]
                    show(f"demo, served in {serve_dtype}, scored in {score_dtype}, {at_once} at once", made)


def generations(model: FederatedModel, at_once: int, number: int) -> Iterator[Generation]:
    """Responses of random prompts, so many decoded at once."""
    dice = torch.Generator().manual_seed(at_once)
    for begin in range(0, number, at_once):
        batch = Batch(model)
        keys = [str(index) for index in range(begin, min(number, begin + at_once))]
        for key in keys:
            length = int(torch.randint(1, 90, (1,), generator=dice))
            prompt = torch.randint(3, 259, (length,), generator=dice).tolist()
            temperature = (0.0, 1.0)[int(key) % 2]
            batch.join(key, prompt, Sampling(max_new_tokens=4 + int(key) % 30, temperature=temperature, seed=int(key)))
        while len(batch):
            batch.step()
        yield from (batch.leave(key) for key in keys)


def booked(model: FederatedModel, generation: Generation, *, token_level: bool) -> BookedReceipt:
    """The receipt of a response as a replica books it, of what it scores with what decoding kept."""
    response = run(credit_in_pieces(model, generation, token_level=token_level))
    tokens = len(generation.token_ids)
    return BookedReceipt(
        sequence=1,
        kind="response",
        response_id="cmpl-1",
        reverses=None,
        payload_sha256="",
        salt="",
        booked_at_us=0,
        created_at_us=0,
        application="",
        consortium=model.name,
        model_sha256=model.global_sha256,
        method="credit",
        settings=response.settings,
        version=response.version,
        tokens=tokens,
        measurement={"response_scores": response.response_scores, "gain": response.gain},
        duration_us=0,
        amounts=receipt_amounts("cmpl-1", tokens, response.shares, response.base_share),
    )


def measure_small(number: int) -> None:
    """What small random models of each family come to again, whole updates and low-rank ones."""
    for family in FAMILIES:
        for kind in ("lora", "full", "everything"):
            with tempfile.TemporaryDirectory() as name:
                base = base_model(family)
                path = write_consortium(Path(name), base, updates(base, kind=kind))
                for dtype in DTYPES:
                    model, other = (FederatedModel.load(path, dtype=dtype) for _ in range(2))
                    model.end_token_ids = set()
                    for at_once in AT_ONCE:
                        made = []
                        for index, each in enumerate(generations(model, at_once, number)):
                            receipt = booked(model, each, token_level=index % 3 == 0)
                            asked = SentRequest(model.name, PromptIds(each.prompt_token_ids), 0.0, ())
                            made.append(recompute(other, receipt, asked, ReceivedAnswer("", each.token_ids)))
                        show(f"{family}, {kind}, scored in {dtype}, {at_once} at once", made)


def main() -> None:
    """Print a line for each way of serving."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--number", type=int, default=32, help="responses of each line")
    parser.add_argument("--part", choices=("small", "demo"))
    given = parser.parse_args()
    if given.part != "demo":
        measure_small(given.number)
    if given.part != "small":
        measure_service(given.bundle, given.number)


if __name__ == "__main__":
    main()
