"""One bundle in memory: the model, the worker over it and its engine, and what it is known by.

Everything that belongs to one round of federated training, and to no other: what it generates, it scores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from attribution.attribute import credit_in_pieces, paper_in_pieces
from attribution.bundle.bundle import Bundle, manifest_sha256, open_bundle
from attribution.errors import BundleError
from attribution.model import FederatedModel
from attribution.scoring.credit_preset import Effort
from deployment.cluster.machine import require_memory, require_room
from deployment.errors import StartError
from deployment.health import watched_parts
from deployment.metrics.replica import ReplicaMetrics
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.credit_recorder import CreditRecorder
from deployment.replica.capacity import Capacity
from deployment.replica.engines.assembly import engine_of
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.messages import ModelCard
from deployment.replica.observer import Observer, SharedObserver
from deployment.replica.scoring.scorer_pool import Ask, ScorerPool
from deployment.replica.scoring.scoring_queue import ScoringQueue
from deployment.replica.worker import Worker
from deployment.settings import EngineSettings, Settings
from deployment.spool.spool import Spool
from rewards.sampled_credit.keys import SamplingKeys

_ASKED_OF_A_SCORER = 2  # one that it works on, and the next


@dataclass(frozen=True)
class ReplicaBooks:
    """What the rounds of one replica share: where receipts go, and which responses are measured."""

    sampling: SamplingKeys
    spool: Spool
    bookings: BookingQueue


@dataclass(frozen=True)
class ServedRound:
    """A round that is served, or that ends what it began, or what a dead process did.

    Attributes:
        card: what it is.
        worker: generates and scores.
        folder: where its bundle lies.
        check: returns where the bundle's files are as they were (`watched_parts.bundle`).
        serves: whether it may take jobs; else it only scores.
        engine_checks: what is watched of its engine.
        lives: whether each thread of its engine does.
        close: ends the engine, once the worker has ended, and what is told of both.
    """

    card: ModelCard
    worker: Worker
    folder: Path
    check: watched_parts.Check
    serves: bool = True
    engine_checks: Mapping[str, watched_parts.Check] = field(default_factory=dict)
    lives: Callable[[], bool] = lambda: True
    close: Callable[[], None] = lambda: None

    @property
    def alive(self) -> bool:
        """Whether tokens and scores will come of it."""
        return self.worker.alive and self.lives()

    def stop(self, timeout_s: float) -> None:
        """Refuse new jobs, book what was generated so far, and end its threads."""
        self.worker.stop(timeout_s)
        self.close()


class RoundLoader:
    """Brings bundles into memory as the settings say, one at a time.

    Args:
        settings: of the service.
        books: of the replica.
        metrics: are told how all rounds fare together.
        ask: lets a scorer score a response; None where this replica does.
    """

    def __init__(
        self, settings: Settings, books: ReplicaBooks, metrics: ReplicaMetrics, ask: Ask | None = None
    ) -> None:
        self._settings = settings
        self._books = books
        self._metrics = metrics
        self._observer = SharedObserver(metrics)
        self._ask = ask
        self._has_served = False
        self._has_loaded = False

    def __call__(self, folder: Path, *, serves: bool) -> ServedRound:
        """Load the bundle of a folder, to be served or only to score what was generated with it, and begin to work.

        Raises:
            StartError: memory is short, or the engine is another's, which serves what it was started with.
            BundleError: the bundle is missing, altered or malformed.
            ModelError: it cannot be loaded as the settings say.
        """
        if serves and self._has_served and self._settings.engine.kind != "embedded":
            raise StartError(
                "the engine is a server of its own, which goes on with the weights it was started with: let it serve "
                "this bundle's, and start the service again"
            )
        # What was generated elsewhere is scored here: no engine is asked for it.
        settings = self._settings if serves else self._settings.model_copy(update={"engine": EngineSettings()})
        served = self._load(settings, folder, serves=serves)
        self._has_served |= serves
        return served

    def _load(self, settings: Settings, folder: Path, *, serves: bool) -> ServedRound:
        require_memory(settings, bundle=folder)
        if self._has_loaded:
            require_room(settings, bundle=folder)
        thread, observer = ModelThread(), self._observer.part()
        try:
            model = thread.call(partial(_model, settings, folder))
            in_pieces = paper_in_pieces if settings.method == "paper" else credit_in_pieces
            scoring = ScoringQueue(model, in_pieces, Effort(settings.nodes, settings.tolerance), observer)
            engine = engine_of(settings, model, scoring, thread, self._metrics.note_engine)
        except BaseException:
            observer.close()
            thread.end_with(_end)
            raise
        self._has_loaded = True
        card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
        scored = engine.scoring if self._ask is None else self._pool(self._ask, model, folder, observer)
        recorder = CreditRecorder(
            card,
            sampling=self._books.sampling,
            scoring=scored,
            spool=self._books.spool,
            bookings=self._books.bookings,
            engine=engine.marks,
        )
        worker = Worker(
            model,
            engine.decoder,
            scoring=scored,
            recorder=recorder,
            capacity=_capacity(settings, engine.max_batch_tokens),
            observer=observer,
            thread=engine.thread,
        )
        watched = watched_parts.bundle("bundle", folder, open_bundle)

        def close() -> None:
            engine.close()
            observer.close()

        return ServedRound(card, worker, folder, watched, serves, engine.checks, lambda: engine.alive, close)

    def _pool(self, ask: Ask, model: FederatedModel, folder: Path, observer: Observer) -> ScorerPool:
        return ScorerPool(
            ask,
            observer,
            bundle=folder,
            manifest_sha256=manifest_sha256(folder),
            served_dtype=model.dtype,
            at_once=_ASKED_OF_A_SCORER * self._settings.scorers,
        )


def require_last_round(bundle: Bundle) -> None:
    """Refuse a bundle that `paper` cannot score.

    Raises:
        BundleError: no client has last-round weights.
    """
    if all(client.last_round_path is None for client in bundle.manifest.clients):
        raise BundleError(f"{bundle.path}: no client has last-round weights, which `method: paper` needs")


def _capacity(settings: Settings, max_batch_tokens: int) -> Capacity:
    return Capacity(
        settings.max_batch,
        settings.max_waiting,
        settings.default_max_tokens,
        settings.max_unscored,
        max_batch_tokens,
    )


def _model(settings: Settings, folder: Path) -> FederatedModel:
    """The model, in the thread that is to run it: how many threads a parallel loop has is a setting of that thread."""
    torch.set_num_threads(settings.processors)
    is_decoding = settings.engine.kind == "embedded"
    model = FederatedModel.load(
        folder,
        device=settings.device,
        dtype=settings.serve_dtype if is_decoding else settings.score_dtype,
        score_dtype=settings.serve_dtype if settings.scorers else settings.score_dtype,
    )
    if settings.method == "paper":
        require_last_round(model.bundle)
    return model


def _end() -> None:
    """What a thread does last."""
