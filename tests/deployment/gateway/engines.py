"""An honest fake of the replicas: no model, but real receipts in a real ledger, and the same promises."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from deployment.errors import UnavailableError
from deployment.replica.messages import (
    Admitted,
    Delta,
    Event,
    Failed,
    Finished,
    Job,
    LikelyToken,
    ModelCard,
    PromptIds,
    Summary,
    TokenCredit,
    TokenIds,
    TokenLogprob,
)
from rewards.credit import Receipt, receipt_amounts
from rewards.ledger.ledger import Ledger

CARD = ModelCard("hospital-net", "ab" * 32, ("clinic", "bank"), context_length=128)
SHARES = {"clinic": 0.5, "bank": 0.25}
BASE_SHARE = 0.25


def logprobs_of(job: Job, piece: str) -> tuple[TokenLogprob, ...]:
    """What it tells of a piece, where the job asks: it was likely, and an exclamation mark was next to that."""
    if job.top_logprobs is None:
        return ()
    octets, number = tuple(piece.encode()), len(piece)
    likely = LikelyToken(piece, octets, -0.5, number), LikelyToken("!", (33,), -2.0, 0)
    return (TokenLogprob(piece, octets, -0.5, number, likely[: job.top_logprobs]),)


def ids_of(job: Job, piece: str, *, is_first: bool) -> TokenIds | None:
    """The ids of a piece, where the job asks: a token's is the number of its letters, and those of the prompt."""
    if not job.with_token_ids:
        return None
    prompt = job.prompt.ids if isinstance(job.prompt, PromptIds) else (1, 2, 3, 4, 5)
    return TokenIds((len(piece),), prompt if is_first else None)


class ScriptedEngine:
    """Says the same pieces to everybody, one token each, and books them before it ends.

    Attributes:
        pieces: what it says; the last piece is held back for the end.
        failure: what it ends with instead, after `pieces` but the last.
        failures: what single responses of a request end with, by their index, at once.
        pause_s: how long it waits before each piece.
        admits: whether it says so to a stream, before any pause.
        books: whether receipts are in the ledger at the end, or only promised.
        down: whether it does not answer at all.
        jobs: what it was asked.
        left: response ids whose caller has gone before the end.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.failures: dict[int, Failed] = {}
        self.pieces: tuple[str, ...] = ("Grüß", " ", "Gott")
        self.failure: Failed | None = None
        self.pause_s = 0.0
        self.admits = False
        self.books = True
        self.down = False
        self.checks = 0
        self.jobs: list[Job] = []
        self.left: list[str] = []
        self._ledger = ledger

    @property
    def names(self) -> tuple[str, ...]:
        """One."""
        return (CARD.name,)

    async def describe(self, name: str) -> ModelCard:
        """What is served, unless it is down."""
        return await self.check(name)

    async def check(self, name: str) -> ModelCard:
        """What is served, unless it is down."""
        assert name == CARD.name
        self.checks += 1
        if self.down:
            raise UnavailableError("no replica of the model answers", code="engine_unavailable", retry_after_s=5)
        return CARD

    async def count_replicas(self) -> int | None:
        """One, unless it is down."""
        return 0 if self.down else 1

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """The events of one response; what was said before a caller left is booked."""
        self.jobs.append(job)
        said = 0
        index = int(job.response_id.partition("-")[2].partition("-")[2] or 0)
        if index in self.failures:
            yield self.failures[index]
            return
        try:
            if self.admits and job.streamed:
                yield Admitted()
            for piece in self.pieces[:-1]:
                await asyncio.sleep(self.pause_s)
                said += 1
                yield Delta(piece, logprobs_of(job, piece), ids_of(job, piece, is_first=said == 1))
        except (asyncio.CancelledError, GeneratorExit):
            self._book(job, said, {"cut": True, "delivered": said})
            self.left.append(job.response_id)
            raise
        if self.failure is not None and self.failure.credited:
            self._book(job, said, {"cut": True, "delivered": said})
        if said == 0:
            await asyncio.sleep(self.pause_s)
        yield self.failure or self._finished(job)

    def _finished(self, job: Job) -> Finished:
        receipt = self._book(job, len(self.pieces), {})
        scores = {client: 2 * share for client, share in SHARES.items()}
        tokens = tuple(TokenCredit(piece, 7 + n, SHARES, scores, BASE_SHARE) for n, piece in enumerate(self.pieces))
        return Finished(
            text=self.pieces[-1],
            finish_reason="stop",
            prompt_tokens=5,
            completion_tokens=len(self.pieces),
            summary=Summary(receipt.payload_sha256, "credit", SHARES, BASE_SHARE, receipt.amounts, 0.001),
            tokens=tokens if job.token_level else (),
            booked=self.books,
            logprobs=logprobs_of(job, self.pieces[-1]),
            token_ids=ids_of(job, self.pieces[-1], is_first=len(self.pieces) == 1),
        )

    def _book(self, job: Job, tokens: int, cut: dict[str, Any]) -> Receipt | None:
        if tokens == 0:
            return None
        receipt = Receipt(
            response_id=job.response_id,
            created_at_us=job.created_at_us,
            application=job.application,
            consortium=CARD.name,
            model_sha256=CARD.global_sha256,
            method="credit",
            settings={"nodes": 2},
            version="1",
            tokens=tokens,
            amounts=receipt_amounts(job.response_id, tokens, SHARES, BASE_SHARE),
            measurement={"response_scores": {"clinic": 1.0, "bank": 0.5}, **cut},
            duration_us=400_000,
        )
        if self.books:
            self._ledger.append(receipt)
        return receipt
