"""Tables on the command line: no id is ever broken, in a terminal of 80 columns and in a pipe."""

from pathlib import Path

import pytest

from deployment.cli import main, output
from deployment.cli.tables import print_table
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.rewards.receipts import MEMBERS, make_receipt

RESPONSE = "chatcmpl-0123456789abcdef0123456789abcdef"


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """A ledger with long ids: of a response, of keys, of a hold on the response."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    book = Ledger(url)
    book.register("demo", MEMBERS)
    book.append(make_receipt(RESPONSE))
    book.close()
    ring = KeyRing(url, bytes(32))
    for label in ("shop", "a key with a label of many words that no terminal holds in one line"):
        ring.create("application", label, actor="test", token_budget=10**9, requests_per_minute=60)
    ring.close()
    return url


@pytest.fixture(params=["pipe", "terminal", "COLUMNS"])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """80 columns, or None for a pipe, which takes any number of them."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(output.console, "record", False)
    monkeypatch.setattr(output.console, "_width", None)
    if request.param == "pipe":
        return None
    if request.param == "terminal":
        monkeypatch.setattr(output.console, "_force_terminal", True)
        monkeypatch.setattr(output.console, "_color_system", None)
        monkeypatch.setattr(output.console, "_width", 80)
    else:
        monkeypatch.setenv("COLUMNS", "80")
    return 80


def _shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    shown = capsys.readouterr()
    assert 0 == (ended.value.code or 0), shown.err
    return shown.out


@pytest.mark.parametrize(
    "command",
    [("keys", "list"), ("ledger", "entries"), ("ledger", "balances"), ("ledger", "verify"), ("hold", "list")],
)
def test_no_id_is_broken(
    capsys: pytest.CaptureFixture[str], ledger: str, width: int | None, command: tuple[str, str]
) -> None:
    """Every id of the JSON stands whole in what people are shown; a pipe has a row on each line."""
    if command[0] == "hold":
        _shown(capsys, "hold", "place", "response", RESPONSE, "--reason", "looked at again, " * 9, "--ledger", ledger)
    shown = _shown(capsys, *command, "--ledger", ledger)
    ids = {
        "keys": [key.key_id for key in KeyRing(ledger, None).list()],
        "ledger": list(MEMBERS) if command[1] != "entries" else [RESPONSE, *MEMBERS],
        "hold": [RESPONSE, "hold-1"],
    }[command[0]]

    assert [] == [each for each in ids if each not in shown]
    if width is None:
        assert max(map(len, shown.splitlines())) > 80 or command[0] == "ledger"


def test_a_row_that_is_too_wide_is_shown_as_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One a column, with its name; a row that fits when texts are folded stays in a table, whose words are whole."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(output.console, "_width", None)  # it was made with that of another test, maybe
    print_table("wide", ("response", "hash"), [("r" * 30, "h" * 30)], footer=("sum", "7"))
    print_table("folded", ("response", "why"), [("r" * 20, "for one of many reasons")])
    shown = capsys.readouterr().out.splitlines()

    assert ["wide", "", f"response  {'r' * 30}", f"hash      {'h' * 30}", "", "response  sum", "hash      7"] == shown[
        :7
    ]
    assert any("r" * 20 in line for line in shown[7:])
    assert all(len(line) <= 40 for line in shown[7:])
    assert {"for", "one", "of", "many", "reasons"} <= set(" ".join(shown[7:]).split())
