"""The whole OpenAPI under attack by `schemathesis run`: no 5xx, and no answer that the schema does not promise.

PROTOKEN_FUZZ_EXAMPLES sets how many cases are made of each operation.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI

from deployment.app.http_app import build_app
from deployment.retention.replays import Replays
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.world import ROLES, World, make_world
from tests.deployment.gateway.engines import ScriptedEngine

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("PROTOKEN_FUZZ_EXAMPLES", "8")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)


@pytest.fixture
def world(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> World:
    """Books with something of everything."""
    return make_world(ledger, keys, tmp_path)


@pytest.fixture
def app(engine: ScriptedEngine, world: World, replays: Replays) -> FastAPI:
    """The HTTP surface over them."""
    return build_app(engine, world.books, replays, default_max_tokens=64, max_tokens_cap=100)


@pytest.mark.parametrize("role", [None, *ROLES])
def test_no_input_makes_the_service_fail_or_break_its_word(
    role: str | None, app: FastAPI, address: str, world: World, tmp_path: Path
) -> None:
    """Whatever is sent, with any role's key or none, the answer is one that the OpenAPI document declares."""
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(app.openapi()), encoding="utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", address, "--no-color"]
    command += ["--checks", ",".join(CHECKS), "--max-examples", EXAMPLES, "--seed", "1", "--continue-on-failure"]
    command += ["--request-timeout", "60", "--suppress-health-check", "all", "--generation-database", "none"]
    if role is not None:
        command += ["--header", f"Authorization: Bearer {world.keys[role]}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=1000)

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    (cases, passed) = re.findall(r"(\d+) generated, (\d+) passed", done.stdout)[-1]
    print(f"{role or 'no key'}: {cases} cases")
    assert int(passed) > 500
