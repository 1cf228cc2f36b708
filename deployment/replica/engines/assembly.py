"""Who makes the tokens of a replica, with all that follows from it: where scores are made, what is watched and told.

Embedded, the model decodes and scores in one thread. Remote, an engine decodes, the worker has a thread of its own, and
the model only scores. Knows no job and no receipt.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attribution.decoding.decode import Batch
from attribution.decoding.taps import Captures
from attribution.model import FederatedModel
from deployment.health.watched_parts import Check
from deployment.replica.engines.canary import TEXT_TOKENS, Canary, Note
from deployment.replica.engines.connection import Connection, api_key_of
from deployment.replica.engines.decoder import Decoder
from deployment.replica.engines.engine_status import engine_check
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.engines.remote_batch import RemoteBatch
from deployment.replica.engines.scoring_thread import ScoringThread
from deployment.replica.scoring.scoring_queue import Scoring, ScoringQueue
from deployment.settings import EngineSettings, Settings


@dataclass(frozen=True)
class EngineParts:
    """What a worker and its replica take of an engine.

    Attributes:
        decoder: makes the tokens.
        scoring: scores them.
        thread: the worker's.
        max_batch_tokens: places for tokens that its cache may come to have; a remote engine sees to its own.
        marks: what receipts say of it.
        checks: what is watched besides.
        lives: whether each thread of it does.
        close: ends it, once the worker has ended.
    """

    decoder: Decoder
    scoring: Scoring
    thread: ModelThread
    max_batch_tokens: int
    marks: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)
    lives: Callable[[], bool] = lambda: True
    close: Callable[[], None] = lambda: None

    @property
    def alive(self) -> bool:
        """Whether tokens and scores will come."""
        return self.lives()


def engine_of(
    settings: Settings,
    model: FederatedModel,
    scoring: ScoringQueue,
    thread: ModelThread,
    note: Note,
) -> EngineParts:
    """The engine that the settings name.

    Args:
        settings: of the service.
        model: of the bundle.
        scoring: belongs to the model's thread.
        thread: in which the model was loaded.
        note: is told how far a remote engine is from the bundle, and whether that is too far.

    Raises:
        StartError: its key cannot be read.
    """
    if settings.engine.kind == "embedded":
        batch = Batch(model, captures=_captures(settings, model))
        return EngineParts(batch, scoring, thread, settings.max_batch_tokens)
    engine = settings.engine
    assert engine.url is not None, "settings of a remote engine have its URL"
    name = engine.model or model.name
    connection = Connection(engine.url, api_key_of(engine))
    scorer = ScoringThread(scoring, thread)
    most_tokens = min(TEXT_TOKENS, settings.max_tokens_cap or TEXT_TOKENS)
    canary = Canary(model, RemoteBatch(model, connection, name), scorer.call, note, most_tokens)

    def close() -> None:
        canary.close()
        connection.close()

    return EngineParts(
        decoder=RemoteBatch(model, connection, name),
        scoring=scorer,
        thread=ModelThread(),
        max_batch_tokens=sys.maxsize,
        marks=_marks(engine, name),
        checks={"engine": engine_check(connection, name, canary)},
        lives=lambda: connection.alive and canary.alive and thread.alive,
        close=close,
    )


def _captures(settings: Settings, model: FederatedModel) -> Captures:
    """What decoding keeps for the score; of numbers of another type than it is scored in, nothing."""
    if settings.scorers:
        return Captures.NONE
    if settings.method == "paper":
        return Captures.PAPER
    return Captures.CREDIT if model.scored is model.network else Captures.NONE


def _marks(engine: EngineSettings, name: str) -> dict[str, Any]:
    """What a receipt's settings say of who generated, beside what was scored; in what numbers it did nobody here knows.

    `weights` are there where it says that it holds others than the bundle's.
    """
    told = {"kind": engine.kind, "model": name} | ({} if engine.weights is None else {"weights": engine.weights})
    return {"engine": told, "served_dtype": None}
