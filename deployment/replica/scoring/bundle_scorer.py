"""Responses scored by the bundles that generated them, each brought into memory when it is asked for.

Runs in one thread. Knows no Ray and no receipt.
"""

import logging
from collections.abc import Callable

import torch

from attribution.attribute import credit_in_pieces, paper_in_pieces
from attribution.bundle.bundle import manifest_sha256
from attribution.errors import AttributionError, BundleError
from attribution.model import FederatedModel
from attribution.scoring.credit_preset import Effort
from attribution.teacher_forcing import generation_of
from deployment.errors import log_text_of
from deployment.replica.scoring.messages import BundleUnreadError, Outcome, UnscoredResponse
from deployment.replica.scoring.scoring_order import ScoringTask
from deployment.replica.scoring.scoring_queue import ScoringQueue
from deployment.settings import Settings

_LOG = logging.getLogger(__name__)
_TURN_S = 1.0


class BundleScorer:
    """Scores one response at a time.

    Args:
        settings: of the service.
        beat: called about once a second while a response is scored, so that whoever watches knows that it gets on.
        rest: called before a bundle is read, which takes as long as its disk does.
    """

    def __init__(
        self, settings: Settings, beat: Callable[[], None] = lambda: None, rest: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._beat = beat
        self._rest = rest
        self._models: dict[str, FederatedModel] = {}  # the one that was used last is the last

    def score(self, response: UnscoredResponse) -> Outcome:
        """What a response scores, or why it cannot be scored.

        Raises:
            torch.AcceleratorError: the device is lost.
        """
        self._rest()
        try:
            model = self._model(response)
        except torch.AcceleratorError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, later it may be read
            why = str(error) if isinstance(error, AttributionError) else f"{response.bundle}: {log_text_of(error)}"
            _LOG.error("a bundle cannot be read for scoring: %s", why)
            return BundleUnreadError(why)
        in_pieces = paper_in_pieces if self._settings.method == "paper" else credit_in_pieces
        queue = ScoringQueue(model, in_pieces, Effort(self._settings.nodes, self._settings.tolerance), _Nobody())
        generation = generation_of(response.prompt_ids, response.token_ids, response.temperature)
        outcomes: list[Outcome] = []
        queue.put(
            ScoringTask(
                generation,
                response.token_level,
                urgent=True,
                done=outcomes.append,
                abandoned=lambda: None,
                frugal=response.frugal,
            )
        )
        while not outcomes:
            self._beat()
            queue.advance(_TURN_S)
        return outcomes[0]

    def _model(self, response: UnscoredResponse) -> FederatedModel:
        """A bundle's model, kept until others are asked for.

        Raises:
            BundleError: the bundle is not the one that is meant, or cannot be read.
            ModelError: it cannot be loaded as the settings say.
        """
        folder, meant = response.bundle, response.manifest_sha256
        model = self._models.pop(meant, None)
        if model is None:
            while len(self._models) > len(self._settings.bundles):  # each consortium's, and one that takes a place
                del self._models[next(iter(self._models))]
            if (digest := manifest_sha256(folder)) != meant:
                raise BundleError(f"{folder}: its manifest has SHA-256 {digest}, not {meant}")
            settings = self._settings
            model = FederatedModel.load(
                folder,
                device="cuda" if settings.gpus_per_scorer else "cpu",
                dtype=settings.serve_dtype if settings.method == "paper" else settings.score_dtype,
                score_dtype=settings.score_dtype,
            )
        self._models[meant] = model
        return model


class _Nobody:
    """Observes the queue of one response: whoever asked counts for himself."""

    def note_attribution(self, seconds: float) -> None:
        """Nothing."""

    def note_unscored(self, responses: int, seconds: float) -> None:
        """Nothing."""
