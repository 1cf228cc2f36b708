"""The Ray Serve deployment that scores, and how a replica asks it. Thin on purpose."""

import asyncio
import logging
import os
from functools import cache, partial
from typing import Any

import torch
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployment.cluster.core_files import forbid_core_files
from deployment.cluster.loopback import listen_on_own_address
from deployment.errors import WorkerDiedError
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.scoring.bundle_scorer import BundleScorer
from deployment.replica.scoring.messages import Outcome, UnscoredResponse
from deployment.replica.scoring.scorer_pool import Ask, ScorerAwayError, ScorerDiedError
from deployment.settings import Settings

SCORERS = "protoken-scorers"
"""An application of their own: they outlive the replicas, which end their responses before they stop."""
DEPLOYMENT = "scorer"
_LOG = logging.getLogger(__name__)


class Scorer:
    """Scores responses, one after the other, in its model's one thread. Wrapped as a Serve deployment in `app`."""

    def __init__(self, settings: Settings) -> None:
        forbid_core_files()
        listen_on_own_address()
        self._thread = ModelThread()
        self._thread.call(partial(torch.set_num_threads, settings.cpus_per_scorer))
        self._scorer = BundleScorer(settings, self._thread.beat, self._thread.rest)

    async def score(self, response: UnscoredResponse) -> Outcome:
        """What a response scores, or why it cannot be scored; where the device is lost, the process ends."""
        try:
            return await asyncio.to_thread(self._thread.call, partial(self._scorer.score, response))
        except torch.AcceleratorError:
            _LOG.exception("the device is lost: this scorer ends, so that another one takes its place at once")
            os._exit(1)

    def check_health(self) -> None:
        """Called by Serve now and then.

        Raises:
            WorkerDiedError: its thread is lost or hangs; Serve starts another scorer.
        """
        if not self._thread.alive:
            raise WorkerDiedError("the thread of a scorer is lost, or hangs; see its log")


def ask_scorers() -> Ask:
    """How the scorers are asked, from any thread; that they may come up later than whoever asks is no failure."""

    @cache
    def scorers() -> DeploymentHandle[Any]:
        return serve.get_deployment_handle(DEPLOYMENT, SCORERS)

    def ask(response: UnscoredResponse) -> Outcome:
        try:
            outcome: Outcome = scorers().score.remote(response).result()
        except (RayActorError, RayTaskError) as error:
            raise ScorerDiedError(str(error)) from error
        except (RayError, RayServeException) as error:
            raise ScorerAwayError(str(error)) from error
        except Exception as error:  # what it raised itself, or its connection
            raise ScorerDiedError(str(error)) from error
        return outcome

    return ask
