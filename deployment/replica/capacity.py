"""How much one replica takes, and why it takes no more."""

from collections.abc import Iterable
from dataclasses import dataclass

from deployment.replica.active_request import ActiveRequest
from deployment.replica.fair_queue import FairQueue, has_room


@dataclass(frozen=True)
class Capacity:
    """How much one worker takes.

    Attributes:
        max_batch: rows that are decoded together.
        max_waiting: jobs that wait for a place.
        default_max_tokens: tokens of a job that does not say.
        max_unscored: responses that are decoded or wait for their score: with more, none joins.
        max_batch_tokens: places for tokens that the model's cache may come to have; a job that needs more is decoded
            alone.
    """

    max_batch: int
    max_waiting: int
    default_max_tokens: int
    max_unscored: int = 256
    max_batch_tokens: int = 65_536

    def take(
        self, waiting: FairQueue[ActiveRequest], running: Iterable[ActiveRequest], most: int
    ) -> list[ActiveRequest]:
        """Who joins those that run, in their turn: at most so many, and while the cache has places for the longest."""
        taken: list[ActiveRequest] = []
        tokens = [row.most_tokens for row in running]
        while waiting and len(taken) < most:
            tokens.append(waiting.peek().most_tokens)
            if len(tokens) > 1 and len(tokens) * max(tokens) > self.max_batch_tokens:
                break
            taken.append(waiting.take())
        return taken

    def refusal(self, *, running: int, in_line: int, own: int) -> str | None:
        """Why there is no place for one job more: all are taken, or its application has taken its part of them.

        Args:
            running: jobs that are decoded.
            in_line: jobs that wait for a place, or for their prompt to be read.
            own: of these, the ones of the same application.
        """
        waiting = max(0, in_line + running - self.max_batch)
        own = min(waiting, own)
        if in_line + running < self.max_batch or has_room(own=own, waiting=waiting, places=self.max_waiting):
            return None
        if waiting < self.max_waiting:
            return f"this application waits in {own} of {self.max_waiting} places, and what is free is left to others"
        return f"all {self.max_batch} places and {self.max_waiting} waiting places are taken"
