"""`make bench-streaming`, part two: how long after the engine sent it a token is with its caller, without HTTP to it.

The worker of a replica runs in this process, beside an engine that sends 64 streams a hundred tokens a second each:
more than two processors could carry through the gateway, so that what is measured is the worker and its connection.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from attribution.model import FederatedModel
from deployment.replica.engines.connection import Connection
from deployment.replica.messages import Delta, Event, Finished
from deployment.spool.spool import Spool
from rewards.ledger.ledger import Ledger
from tests.attribution.consortia import base_model, updates, write_consortium
from tests.benchmarks.figures import Figure, print_figures
from tests.deployment.replica.engines.fake_engine import FakeEngine, Item, chunk, engine_at_work, usage
from tests.deployment.replica.engines.test_worker import remote_worker
from tests.deployment.replica.test_worker import Caller, Notes, job

STREAMS, TOKENS, RATE = 64, 100, 100
TARGET_MS = 30.0
TIMES = 3


class Clock:
    """When each token was sent, and when its caller had it; by stream and number."""

    def __init__(self) -> None:
        self.sent: dict[tuple[int, int], float] = {}
        self.shown: dict[tuple[int, int], float] = {}

    def send(self, body: dict[str, Any]) -> Iterator[Item]:
        """The engine's script."""
        seed, start = body["seed"], time.perf_counter()
        for n in range(TOKENS):
            yield max(0.0, start + n / RATE - time.perf_counter())
            self.sent[seed, n] = time.perf_counter()
            yield chunk([40], "x", **({"prompt_token_ids": body["prompt"]} if n == 0 else {}))
        yield usage(TOKENS)

    def delays_ms(self) -> list[float]:
        """Ascending, of the tokens before each stream's last, which comes with its end."""
        delays = sorted(1000 * (self.shown[key] - at) for key, at in self.sent.items() if key in self.shown)
        assert len(delays) > 0.9 * STREAMS * (TOKENS - 1), f"{len(delays)} tokens were seen"
        return delays


class TimedCaller(Caller):
    """Notes when it had each token. Text that came together is one piece, and counts once for each letter of it."""

    def __init__(self, *args: Any, clock: Clock, **rest: Any) -> None:
        self._clock, self._seen = clock, 0
        super().__init__(*args, **rest)

    def _take(self, event: Event) -> None:
        if isinstance(event, Delta):
            now = time.perf_counter()
            for _ in event.text:
                self._clock.shown[self.job.seed or 0, self._seen] = now
                self._seen += 1
        super()._take(event)


def main() -> None:
    """Measure it thrice, and print the figures of the run in the middle."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, engine_at_work() as engine:
        base = base_model("llama")
        model = FederatedModel.load(write_consortium(Path(name) / "bundle", base, updates(base)))
        model.end_token_ids = set()
        runs = sorted((_run(model, engine, Path(name) / str(n)) for n in range(TIMES)), key=lambda run: run[1])
    p50, p99 = runs[TIMES // 2]
    print_figures("streaming", [Figure("engine_delay_ms_p99", p99, TARGET_MS, False, f"p50 {p50:.1f} ms")])


def _run(model: FederatedModel, engine: FakeEngine, folder: Path) -> tuple[float, float]:
    """p50 and p99 of the delays, in milliseconds."""
    folder.mkdir()
    url, clock = f"sqlite:///{folder}/ledger.db", Clock()
    Ledger.prepare(url)
    ledger, spool, line = Ledger(url), Spool(folder / "spool"), Connection(engine.url)
    ledger.register(model.name, {client: client for client in model.client_ids})
    engine.script = clock.send
    with remote_worker(model, line, ledger, spool, Notes()) as worker:
        changes = {"streamed": True, "attributed": False, "temperature": 1.0}
        jobs = [job(f"r{n}", "tell me", TOKENS, seed=n + 1, **changes) for n in range(STREAMS)]
        callers = [TimedCaller(worker, each, ledger, look=False, clock=clock) for each in jobs]
        assert [Finished] * STREAMS == [type(caller.end()) for caller in callers]
    line.close()
    ledger.close()
    delays = clock.delays_ms()
    return delays[len(delays) // 2], delays[int(len(delays) * 0.99)]


if __name__ == "__main__":
    main()
