"""The Ray Serve deployment that scores, and how a replica asks it. Thin on purpose."""

import asyncio
from functools import partial
from typing import Any

import torch
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


class Scorer:
    """Scores responses, one after the other, in its model's one thread. Wrapped as a Serve deployment in `app`."""

    def __init__(self, settings: Settings) -> None:
        forbid_core_files()
        listen_on_own_address()
        self._thread = ModelThread()
        self._thread.call(partial(torch.set_num_threads, settings.cpus_per_scorer))
        self._scorer = BundleScorer(settings)
        self._is_lost = False

    async def score(self, response: UnscoredResponse) -> Outcome:
        """What a response scores, or why it cannot be scored.

        Raises:
            torch.AcceleratorError: the device is lost.
        """
        try:
            return await asyncio.to_thread(self._thread.call, partial(self._scorer.score, response))
        except torch.AcceleratorError:
            self._is_lost = True
            raise

    def check_health(self) -> None:
        """Called by Serve now and then.

        Raises:
            WorkerDiedError: its device or its thread is lost; Serve starts another scorer.
        """
        if self._is_lost or not self._thread.alive:
            raise WorkerDiedError("the device or the thread of a scorer is lost; see its log")


def ask_scorers(handle: DeploymentHandle[Any]) -> Ask:
    """How scorers behind a Serve handle are asked, from any thread."""

    def ask(response: UnscoredResponse) -> Outcome:
        try:
            outcome: Outcome = handle.score.remote(response).result()
        except (RayActorError, RayTaskError) as error:
            raise ScorerDiedError(str(error)) from error
        except (RayError, RayServeException) as error:
            raise ScorerAwayError(str(error)) from error
        return outcome

    return ask
