"""The light door: help, and what a member asks, in a moment and without the libraries of models and of the service."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
import typer

from deployment.cli.commands import app, main
from deployment.cli.on_demand import Deferred, load_command
from rewards import periods, statements
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.sealer import seal
from rewards.settlement.policy import Policy
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.receipts import MEMBERS, make_receipt

HEAVY = {
    "torch", "transformers", "peft", "gguf", "safetensors", "numpy", "scipy", "matplotlib", "ray", "fastapi",
    "starlette", "httpx", "jinja2", "prometheus_client", "grafana_foundation_sdk", "alembic", "psycopg",
}  # fmt: skip
PROBE = """\
import json, sys, time
from deployment.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code or 0
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"code": code, "modules": modules, "seconds": time.process_time()}), file=sys.stderr)
"""
"""Runs a command and tells of its own process: processor time is user and system, from the interpreter's start on."""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """A ledger whose period is final, with a statement, a proof and the public key that they hold under."""
    folder = tmp_path_factory.mktemp("door")
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger:
        ledger.register("demo", MEMBERS)
        ledger.append(make_receipt("r1"))
        periods.close(ledger, "2026-11", Policy(currency="EUR", pool=100_000), "me")
        seal(ledger, KEY, ORIGIN)
        with ledger.database.read() as connection:
            statement = statements.issue(connection, "2026-11", "clinic", KEY)
            proof = proofs.receipt_proof(connection, "r1", "clinic")
    (folder / "statement.json").write_text(json.dumps(statement))
    (folder / "proof.json").write_text(json.dumps(proof))
    (folder / "public.key").write_text(KEY.public.encode() + "\n")
    names = {"STATEMENT": "statement.json", "PROOF": "proof.json", "KEY": "public.key"}
    return {"LEDGER": url} | {word: str(folder / name) for word, name in names.items()}


@pytest.mark.parametrize(
    ("command", "bound_s"),
    [
        ("--help", 0.5),
        ("--version", 0.5),
        ("ledger --help", 0.5),
        ("ledger balances --ledger LEDGER", 1.0),
        ("statement verify STATEMENT --public-key KEY", 1.0),
        ("ledger check-proof PROOF --public-key KEY", 1.0),
        ("keys list --ledger LEDGER", 1.0),
    ],
)
def test_the_door_is_light(places, command, bound_s):
    """Each needs no heavy library, and at most so many seconds of processor time on the best of five runs.

    The bounds are the promise itself, about twice what a quiet machine needs; the best of five, as whatever else runs
    on a busy machine adds to each.
    """
    seconds = []
    for _ in range(5):
        arguments = [places.get(word, word) for word in command.split()]
        ran = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
        told = json.loads(ran.stderr.splitlines()[-1])
        assert (0, set()) == (told["code"], HEAVY & set(told["modules"])), ran.stderr
        seconds.append(told["seconds"])
        if seconds[-1] <= bound_s:
            break

    assert min(seconds) <= bound_s


def _deferred(command) -> Iterator[tuple[str, Deferred]]:
    for name, found in command.commands.items():
        if isinstance(found, Deferred):
            yield name, found
        if hasattr(inner := load_command(found), "commands"):
            yield from _deferred(inner)


def test_what_help_says_of_a_command_is_what_the_command_says():
    """The summary that stands in the table, so that nothing need be imported, is the command's own first paragraph."""
    told = dict(_deferred(typer.main.get_command(app)))

    assert len(told) > 20
    for name, found in told.items():
        assert " ".join(found.load().help.split("\n\n")[0].split()) == found.help, name


def test_a_command_that_is_not_there_is_refused(capsys):
    """Also of a group whose commands are loaded on demand, with the one that was probably meant."""
    with pytest.raises(SystemExit) as ended:
        main(["ledger", "balance"])

    assert ended.value.code == 2
    assert "Did you mean 'balances'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "module", ["deployment", "deployment.cli", "attribution", "rewards", "attribution.files.untrusted"]
)
def test_the_packages_themselves_are_light(module):
    """Importing a package brings none of the heavy libraries: who needs one imports the module that does."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set() == HEAVY & set(ran.stdout.split())


def test_the_app_needs_no_model():
    """The process that speaks HTTP has none of what a model takes: that is seconds, and hundreds of megabytes."""
    code = "import sys, deployment.app.ingress; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set() == {"torch", "transformers", "peft", "safetensors"} & set(ran.stdout.split())
