"""Several models, each with replicas of its own, as the one `Engine` of the gateway. Knows no Serve handle."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from deployment.replica.messages import Event, Job, ModelCard


class ModelEngine(Protocol):
    """What the ingress asks of the replicas of one model."""

    async def describe(self) -> ModelCard:
        """What is served; raises UnavailableError where no replica answers."""

    async def check(self) -> ModelCard:
        """The same, as a replica says now."""

    async def count_replicas(self) -> int | None:
        """How many replicas run; None where nobody can say."""

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response, as those of `Engine`."""


class Models:
    """The models of a service by their names; at least one."""

    def __init__(self, engines: Mapping[str, ModelEngine]) -> None:
        self._engines = engines

    @property
    def names(self) -> tuple[str, ...]:
        """As in `Engine`."""
        return tuple(self._engines)

    async def describe(self, name: str) -> ModelCard:
        """As in `Engine`."""
        return await self._engines[name].describe()

    async def check(self, name: str) -> ModelCard:
        """As in `Engine`."""
        return await self._engines[name].check()

    async def count_replicas(self) -> int | None:
        """As in `Engine`."""
        counts = await asyncio.gather(*(each.count_replicas() for each in self._engines.values()))
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """As in `Engine`."""
        return self._engines[job.model].generate(job)
