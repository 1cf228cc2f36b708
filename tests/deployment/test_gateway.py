"""What the ingress asks of Serve's controller, which may hang."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from deployment.gateway import HandleEngine

HANDLE: Any = SimpleNamespace(app_name="protoken", deployment_name="replica")


def test_a_controller_that_hangs_takes_one_thread_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked how many replicas run: keys are checked in the threads that would be gone."""
    let_go, asked = threading.Event(), []

    def hanging(_engine: HandleEngine) -> None:
        asked.append(threading.current_thread())
        assert let_go.wait(30)

    async def ask_again_and_again() -> str:
        for _ in range(50):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await engine.running()
        return await asyncio.to_thread(lambda: "a key is checked")

    engine = HandleEngine(HANDLE)
    monkeypatch.setattr(HandleEngine, "_running", hanging)
    try:
        assert "a key is checked" == asyncio.run(asyncio.wait_for(ask_again_and_again(), 20))
        assert 1 == len(asked)
    finally:
        let_go.set()
