"""`protoken doctor` beside the real service: it knows its ports as the service's own, and finds all in order."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.attribution.consortia import base_model, updates, write_consortium
from tests.end_to_end.service import Service, new_ledger, once_booked, service
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.slow


def _examine(bundle: Path, folder: Path, running: Service) -> tuple[int, dict[str, tuple[str, str]]]:
    ports = zip(
        ("port", "metrics_port", "replica_metrics_port"),
        (running.address, running.metrics, running.replica_metrics),
        strict=True,
    )
    settings = {name: str(urlsplit(address).port) for name, address in ports}
    settings |= {name: str(folder / name) for name in ("spool", "signing_key", "pepper_file")}
    settings |= {"bundle": str(bundle), "ledger": running.ledger}
    environment = os.environ | {f"PROTOKEN_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "deployment.cli", "doctor", "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(ran.stdout)["findings"]
    return ran.returncode, {each["item"]: (each["state"], each["message"]) for each in found}


def test_the_doctor_looks_at_a_service_that_runs(tmp_path: Path) -> None:
    """Each port says which part of the service holds it; what was just booked is seen, and the service goes on."""
    model = base_model("llama", max_position_embeddings=2048)
    bundle = write_consortium(tmp_path / "bundle", model, updates(model))
    with service(bundle, new_ledger(tmp_path), tmp_path / "serve.log") as running:
        headers = {"Authorization": f"Bearer {running.application}"}
        body = {"model": "test", "prompt": "Hello", "max_tokens": 4}

        def ask() -> httpx.Response:
            return httpx.post(f"{running.address}/v1/completions", json=body, headers=headers, timeout=PATIENCE_S)

        once_booked(running, ask())
        code, found = _examine(bundle, tmp_path, running)
        again = ask()

    assert {} == {item: each for item, each in found.items() if each[0] == "wrong"}
    assert 0 == code
    assert "held by a protoken service that runs: its API, whose health is ok" in found["port"][1]
    assert "its exporter" in found["metrics_port"][1]
    assert "its replicas' series" in found["replica_metrics_port"][1]
    assert "with 1 receipts" in found["ledger"][1]
    assert 200 == again.status_code
