"""The Vercel AI SDK unchanged, in node, by its provider for servers that speak OpenAI's API."""

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from deployment.replica.messages import ChatMessage
from tests import wanted
from tests.deployment.gateway.engines import CARD, ScriptedEngine
from tests.waiting import PATIENCE_S

SCRIPT = Path(__file__).parent / "vercel"
FILES = ("package.json", "package-lock.json", "ask.mjs")


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    """The script with the SDK beside it, which is installed once for each version of it."""
    npm = wanted.program("npm", "npm")
    locked = sha256((SCRIPT / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(request.config.cache.mkdir("vercel")) / locked
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copy(SCRIPT / name, folder / name)
    if not (folder / "installed").exists():
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert 0 == installed.returncode, installed.stderr
        (folder / "installed").touch()
    return folder


def test_the_sdk_answers_streams_and_refuses(
    folder: Path, address: str, application_key: str, engine: ScriptedEngine
) -> None:
    """`generateText` and `streamText` with text, finish reason and usage; a refusal has its status and message."""
    command = [wanted.program("node", "nodejs"), "ask.mjs", f"{address}/v1", application_key, CARD.name]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert 0 == ran.returncode, ran.stderr
    told = json.loads(ran.stdout)

    assert ["Grüß Gott", "stop", [5, 3, 8]] == told["whole"]
    assert [["Grüß", " ", "Gott"], "stop", [5, 3, 8]] == told["streamed"]
    assert ["Grüß Gott", "stop"] == told["text"]
    status, is_retryable, message = told["refused"]
    assert (404, False) == (status, is_retryable)
    assert "'another'" in message
    whole, streamed, _ = engine.jobs
    assert (7, 9, ("never",), 0.1) == (whole.seed, whole.max_tokens, whole.stop, whole.frequency_penalty)
    assert (ChatMessage("system", "be brief"), ChatMessage("user", "hello")) == streamed.prompt
