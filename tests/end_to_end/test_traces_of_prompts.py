"""A prompt that nobody else knows, through streams, refusals, kills and recovery: which files hold it, and when."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from attribution.model import FederatedModel
from rewards.ledger.ledger import Ledger
from tests.end_to_end.service import Service, new_ledger, replica_of, service
from tests.waiting import PATIENCE_S, is_up, until

pytestmark = pytest.mark.slow
WORD = "Zanzibarquill"
MARKER = f"{WORD} ostrichlantern 7316 vespermoat"
RAY = Path("/tmp/ray")  # where Ray keeps its sessions


def test_a_prompt_is_on_the_disk_while_its_stream_runs_and_nowhere_after(real_bundle, tmp_path):
    """Its ids are in the spool, for the owner alone, until what a kill left is booked; its text is in no file, ever."""
    ids = FederatedModel.load(real_bundle).encode_text(MARKER)
    assert len(ids) >= 8
    needles = [MARKER.encode(), WORD.encode()]
    needles += [between.join(str(each) for each in ids[2:7]).encode() for between in (",", ", ")]
    sessions = set(RAY.glob("session_*"))
    ledger, log = new_ledger(tmp_path), tmp_path / "serve.log"
    with service(real_bundle, ledger, log) as running:
        response_id = _cut(running, tmp_path, needles)
        book = Ledger(ledger)
        until(lambda: book.receipt(response_id))
        assert book.receipt(response_id).measurement["recovered"]
        until(lambda: is_up(f"{running.address}/health"))
        _other_requests(running)
        until(lambda: not _holding(tmp_path, needles))
        mine = [path for path in RAY.glob("session_*") if path not in sessions]
        assert mine, "Ray has a session of its own"
        assert [] == [name for session in mine for name in _holding(session, needles)]

    assert [] == _holding(tmp_path, needles)
    assert [] == [name for session in mine for name in _holding(session, needles)]


def _cut(running: Service, folder: Path, needles: list[bytes]) -> str:
    """A stream of the marker that the kill of its replica cuts; its ids are in the spool meanwhile, and only there."""
    body = {
        "model": "real",
        "prompt": f"{MARKER} and",
        "max_tokens": 400,
        "temperature": 2.0,
        "seed": 1,
        "stream": True,
    }
    response_id, pieces = "", 0
    with httpx.stream(
        "POST", f"{running.address}/v1/completions", json=body, headers=_key(running), timeout=PATIENCE_S
    ) as got:
        for line in got.iter_lines():
            if not line.startswith('data: {"id"'):
                continue
            response_id, pieces = json.loads(line[6:])["id"], pieces + 1
            if pieces == 40:
                held = _holding(folder, needles)
                assert [True] == [path.name.startswith("spool-") for path in held]
                assert [0o600, 0o700] == [path.stat().st_mode & 0o777 for path in (held[0], held[0].parent)]
                os.kill(replica_of(running).pid, signal.SIGKILL)
    assert pieces >= 40
    return response_id


def _other_requests(running: Service) -> None:
    """The marker in a whole answer, in a refusal for its length, in a bad request, and under an idempotency key."""
    messages = [{"role": "user", "content": MARKER}]
    bodies = [
        {"messages": messages, "max_tokens": 20},
        {"messages": [{"role": "user", "content": MARKER * 4000}]},
        {"messages": messages, "temperature": 9},
        {"messages": messages, "max_tokens": 20, "stream": True, "top_p": 1e-46},
    ]
    statuses = []
    for number, body in enumerate(bodies):
        headers = _key(running) | {"Idempotency-Key": f"key {number}"}
        url = f"{running.address}/v1/chat/completions"
        statuses.append(
            httpx.post(url, json={"model": "real", **body}, headers=headers, timeout=PATIENCE_S).status_code
        )
    assert [200, 400, 400, 200] == statuses


def _key(running: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {running.application}"}


def _holding(folder: Path, needles: list[bytes]) -> list[Path]:
    """The files that hold the marker."""
    found = []
    walk = os.walk(folder)  # which goes on where a folder vanishes, as those of other services do
    for path in sorted(Path(parent, name) for parent, _, names in walk for name in names):
        if path.is_file() and not path.is_symlink():
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            if any(needle in data for needle in needles):
                found.append(path)
    return found
