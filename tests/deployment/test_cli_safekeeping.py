"""`protoken ledger migrate`: what an operator does with a ledger that an older version made, and is told."""

import json
import sqlite3

import pytest

from deployment.cli import main
from tests.fixtures import copied


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


@pytest.fixture
def before(tmp_path):
    """All that a service of the version before kept."""
    return copied(tmp_path)


@pytest.fixture
def url(before):
    """Its ledger."""
    return f"sqlite:///{before}/ledger.db"


def test_migrate_says_what_it_did(capsys, url):
    """The first time it names both schemas, the second that nothing was changed; `--json` is for machines."""
    code, out, err = run(capsys, "ledger", "migrate", "--ledger", url, "--json")
    again = run(capsys, "ledger", "migrate", "--ledger", url)

    assert (0, "") == (code, err)
    assert {"ledger": url, "before": "0002"} == {name: json.loads(out)[name] for name in ("ledger", "before")}
    assert 0 == again[0]
    assert f"is of schema {json.loads(out)['schema']} already; nothing was changed" in again[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ledger", "balances"],
        ["ledger", "verify"],
        ["ledger", "migrate"],
        ["keys", "list"],
        ["keys", "create", "--role", "operator"],
        ["period", "list"],
        ["exporter", "--port", "0"],
    ],
)
def test_every_command_says_the_same_of_a_newer_ledger(capsys, before, url, command):
    """Whatever is tried with a ledger of a version to come ends with one line that says so, and 1."""
    with sqlite3.connect(before / "ledger.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    code, out, err = run(capsys, *command, "--ledger", url)

    assert (1, "") == (code, out)
    assert err.startswith(f"protoken: ledger {url} was made by a newer protoken: it is of schema 9999")
    assert 1 == err.count("\n")
