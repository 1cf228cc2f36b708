"""From a Flower project to the first payout table, by the commands of the page, in two fresh environments.

Ten minutes of two processors, so it runs by `make test-guide` alone.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from attribution.base.references import load_model, load_tokenizer, resolve_base, save_model
from attribution.training.recipe import DEFAULT_BASE
from tests.end_to_end.environments import ROOT, Environment, built_wheel, environment
from tests.end_to_end.flower.environment import flower_environment
from tests.end_to_end.flower.federation import FlowerFederation, flower_federation
from tests.end_to_end.service import free_port
from tests.waiting import PATIENCE_S, until, until_up

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PROTOKEN_GUIDE" not in os.environ, reason="ten minutes: `make test-guide` runs it"),
]
PAGE = ROOT / "attribution" / "importers" / "README.md"
PROJECT = Path(__file__).parent / "flower" / "tuning"
DEMO = ROOT / "configs" / "demo"
MEMBERS = {"clinic": "Lindenmoor Clinic", "bank": "Marlow Savings", "software": "Quillhazel"}
WHOLE_S = 600
TRAINING_S = 500


def commands() -> list[list[str]]:
    """The commands of the section, in their order, as they stand there."""
    section = PAGE.read_text(encoding="utf-8").partition("## From Flower")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("protoken ")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built once."""
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def flower(wheel) -> Path:
    """The programs of a Flower project's environment: Flower, the wheel's base, and the torch that tunes its model."""
    programs = flower_environment(wheel)
    (site,) = programs.parent.glob("lib/python3*/site-packages")
    (ours,) = Path(sys.prefix).glob("lib/python3*/site-packages")
    (site / "zz-torch.pth").write_text(f"{ours}\n")  # after its own: what Flower pins comes first
    yield programs
    (site / "zz-torch.pth").unlink()


@pytest.fixture(scope="module")
def service_environment(wheel, tmp_path_factory) -> Environment:
    """An environment with all that the wheel asks for."""
    return environment(tmp_path_factory.mktemp("service") / "venv", wheel, "all")


def run(folder: Path, programs: Path, words: list[str]) -> str:
    """What a command of the page prints; a `>` in it leads to a file."""
    target = Path(words[words.index(">") + 1]) if ">" in words else None
    words = words[: words.index(">")] if target else words
    done = subprocess.run(
        [str(programs / words[0]), *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    if target:
        (folder / target).write_text(done.stdout)
    return done.stdout


def train(federation: FlowerFederation, folder: Path, programs: Path, keygen: list[str]) -> None:
    """Steps 1 and 2: keys, members and rounds."""
    members = []
    for client, name in MEMBERS.items():
        own = folder / client
        own.mkdir()
        run(own, programs, [word.replace("clinic", client) for word in keygen])
        config = {
            "data": str(DEMO / f"{client}.jsonl"),
            "protoken-key": str(own / f"{client}.key"),
            "protoken-sent": str(own / "sent"),
            "protoken-consortium": "fedqa",
            "protoken-client": client,
        }
        node_key = federation.add_node(client, config)
        signing_key = (own / f"{client}.pub").read_text().strip()
        members.append({"client": client, "name": name, "node_public_key": node_key, "signing_key": signing_key})
    (folder / "members.json").write_text(json.dumps(members))
    places = {"folder": "rounds", "members": "members.json", "model": "models/base"}
    asked = federation.start_run({name: str(folder / place) for name, place in places.items()}, PROJECT)
    until(lambda: asked.poll() is not None, TRAINING_S, federation.logs)
    assert (folder / "rounds" / "round-0004").is_dir(), federation.logs()


def ask(address: str, key: str) -> list[tuple[str, str]]:
    """The owner and the top client of each question that was answered rightly."""
    questions = [json.loads(line) for line in (DEMO / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    headers = {"Authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=address, headers=headers, timeout=httpx.Timeout(None, connect=PATIENCE_S)) as http,
        ThreadPoolExecutor(16) as pool,
    ):

        def answer(question: dict) -> dict:
            body = {
                "model": "fedqa",
                "messages": [{"role": "user", "content": question["prompt"]}],
                "max_tokens": 24,
                "temperature": 0,
                "attribution": "summary",
            }
            return http.post("/v1/chat/completions", json=body).raise_for_status().json()

        answers = list(pool.map(answer, questions))
    owners = []
    for question, document in zip(questions, answers, strict=True):
        text = document["choices"][0]["message"]["content"].lower()
        shares = document["usage"]["attribution"]["shares"]
        if all(fact.lower() in text for fact in question["facts"]):
            owners.append((question["client"], max(shares, key=shares.get)))
    return owners


def test_a_flower_project_pays_its_members(flower, service_environment, tmp_path):
    """Every command of the section ends well, the owner is on top of at least 90 % of the right answers, in time."""
    folder, since = tmp_path, time.monotonic()
    base = resolve_base(DEFAULT_BASE)
    save_model(load_model(base), load_tokenizer(base), folder / "models" / "base")
    (folder / "policy.yaml").write_text("{pool: 1000000, currency: EUR}\n")
    keygen, *others = commands()
    with flower_federation(folder, flower) as federation:
        train(federation, folder, flower, keygen)
    trained = time.monotonic()
    for name in ("clinic.pub", "sent"):
        (folder / "clinic" / name).rename(folder / name)
    serve = next(index for index, words in enumerate(others) if words[1] == "serve")
    bin_folder = service_environment.folder / "bin"
    printed = [run(folder, bin_folder, words) for words in others[:serve]]
    (key,) = re.findall(r"ptk_[\w-]+", printed[-1])
    ports = {name: str(free_port()) for name in ("PORT", "METRICS_PORT", "REPLICA_METRICS_PORT")}
    variables = os.environ | {f"PROTOKEN_{name}": port for name, port in ports.items()}
    address, log = f"http://127.0.0.1:{ports['PORT']}", folder / "serve.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [str(bin_folder / others[serve][0]), *others[serve][1:]],
            cwd=folder,
            stdout=output,
            stderr=output,
            env=variables,
        ) as process,
    ):
        try:
            until_up("the service", f"{address}/health", process, log)
            owners = ask(address, key)
            tables = [run(folder, bin_folder, words) for words in others[serve + 1 :]]
        finally:
            process.terminate()
            process.wait()
    on_top = sum(owner == top for owner, top in owners)
    whole = time.monotonic() - since
    print(f"{on_top} of {len(owners)} right answers of 36; {trained - since:.0f} s to train, {whole:.0f} s in all")
    print(tables[-1])

    assert len(owners) >= 12
    assert on_top >= 0.9 * len(owners)
    assert "10,000.00 EUR" in tables[-1]
    assert whole <= WHOLE_S
