"""A label, a name, an id or a reason that looks like markup, a formula, a header or a control breaks no output."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from deployment.books import statement_page
from deployment.books.books import Books
from deployment.cli import heat_map, main, output, tables
from deployment.cli.progress import ProgressBar
from deployment.metrics.ledger import LedgerCollector
from rewards import periods, statements
from rewards.files.plain_text import json_line, many_lines, one_line
from rewards.files.spreadsheet_cells import cell
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.periods import holds
from rewards.settlement.policy import Policy
from rewards.signing.keys import SigningKey
from tests.deployment.api.world import ORIGIN, ROLES, World, receipt
from tests.deployment.console.conftest import SignIn
from tests.deployment.console.documents import Document
from tests.deployment.gateway.engines import CARD

PRINTABLE = (
    *("[/b]", "[bold red]x[/]", "[link=file:///]x", ":smile:", "=1+1", "+1", "-1", "@SUM(A1)", "＝1", " =1"),
    *("<script>alert(1)</script>", "'\"`;--", "{{7*7}}", "{0}", "%s%n", 'a,"b;c', "a\\nb", "🏦", "Zoë", "مستشفى"),
)
"""What an id, a label or a reason may be; each of them means something to some reader."""
CONTROLS = (
    "a\nINFO forged",
    "a\tb",
    "\r\nSet-Cookie: x=1",
    "\x1b[31mred",
    "\x9b2J",
    "\u202etxt.exe",
    "x\u2028y",
    "\x00",
)
"""What a display name, a prompt or a model's token may be as well."""
ANY_TEXT = pytest.mark.parametrize("text", [*PRINTABLE, *CONTROLS])
IDS = [text for text in PRINTABLE if "/" not in text]
HARMFUL = {character for text in CONTROLS for character in text if not character.isprintable()} - {"\n"}


def names() -> dict[str, str]:
    """Clients whose ids mean something to some reader, and whose names hold controls as well."""
    texts = [*PRINTABLE, *CONTROLS]
    return {client: texts[(place * 7 + 3) % len(texts)] for place, client in enumerate(IDS)} | {
        f"client-{place}": text for place, text in enumerate(CONTROLS)
    }


@pytest.fixture
def world(url: str, ledger: Ledger, keys: KeyRing, tmp_path: Path) -> World:
    """Books in which every text that may be nasty is; a final period, a draft and an open one."""
    key = SigningKey.generate(ORIGIN)
    key.save(tmp_path / "signing.key")
    (tmp_path / "public.key").write_text(key.public.encode())
    (tmp_path / "policy.yaml").write_text("currency: EUR\npool: 1000000\n")
    ledger.register(CARD.name, names())
    clients = list(names())
    for place, text in enumerate(PRINTABLE):
        client, other = clients[place % len(clients)], clients[(place + 1) % len(clients)]
        ledger.append(receipt(text, text, {client: 600_000, other: 300_000, "commons": 100_000}))
        keys.create("application", text, actor="test")
    ledger.reverse(PRINTABLE[0], PRINTABLE[0], "test")
    periods.close(ledger, "first", Policy(currency="EUR", pool=1_000_000), "test")
    for place, text in enumerate(PRINTABLE):
        ledger.append(receipt(f"{text} again", text, {clients[place % len(clients)]: 1_000_000}))
        holds.place(ledger, "client", clients[place % len(clients)], text, "test")
    periods.close(ledger, "second", Policy(currency="EUR", pool=1_000_000, dispute_days=3), "test")
    ledger.append(receipt("open", "=1+1", {clients[0]: 1_000_000}))
    seal(ledger, key, ORIGIN)
    made = {
        role: keys.create(role, f"label of {role}", actor="test", client=clients[0] if role == "member" else None)
        for role in ROLES
    }
    return World(Books(ledger, keys, tmp_path / "signing.key", tmp_path / "policy.yaml"), made, ())


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the command line shows on a wide terminal."""
    shown = io.StringIO()
    console = Console(file=shown, width=4000, highlight=False, markup=False, emoji=False)
    for module in (output, tables):
        monkeypatch.setattr(module, "console", console)
    return shown


@ANY_TEXT
def test_a_table_shows_it_as_it_is(screen: io.StringIO, text: str) -> None:
    """In a cell, a title and a footer, on its own line and obeyed by no terminal."""
    tables.print_table(text, ("one", "two"), [(text, "1")], footer=(text, text))

    shown = screen.getvalue()
    assert not HARMFUL & set(shown)
    assert 4 == shown.count(one_line(text).strip()) if len(text.strip()) > 3 else one_line(text).strip() in shown
    assert 1 + 7 == len(shown.splitlines())


@ANY_TEXT
def test_a_line_and_a_heat_map_show_it_as_it_is(screen: io.StringIO, text: str) -> None:
    """What is said stays one line; a token may break its line, and do nothing else."""
    output.say(text)
    output.console.print(heat_map.heat_map([text], {text: [1.0]}, [0.0], heat_map.tint([text])))
    output.console.print(heat_map.legend(heat_map.tint([text])))

    first, *rest = screen.getvalue().split("\n")
    assert one_line(text).strip() == first.strip()
    assert not (HARMFUL - {"\t"}) & set("".join(rest))
    assert many_lines(text).expandtabs().strip().split("\n")[0].split()[-1] in screen.getvalue()


def test_the_consoles_of_the_command_line_obey_no_markup() -> None:
    """Neither the one that prints, nor the bar of progress on a terminal."""
    shown = io.StringIO()
    assert (False, False) == (output.console._markup, output.console._emoji)
    with ProgressBar() as bar:
        bar._progress.console.file, bar._progress.disable = shown, False
        bar.start("[/b] \x1b[31m", 3)
        bar._progress.console.print(bar._progress.get_renderable())

    assert "[/b] \\x1b[31m" in shown.getvalue()


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        ("ledger", "balances"),
        ("ledger", "entries", "--limit", "1000"),
        ("hold", "list"),
        ("period", "list"),
        ("period", "preview", "second", "--policy", "policy.yaml"),
        ("keys", "list"),
        ("ledger", "verify"),
    ],
)
def test_every_list_of_the_command_line_is_whole(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    world: World,
    url: str,
    tmp_path: Path,
    command: Any,
) -> None:
    """As a table and as JSON, with exit code 0; the texts are there and no control is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(output.console, "_width", 4000)
    for form in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--ledger", url, *form])
        shown = capsys.readouterr()

        assert (0, "") == (ended.value.code or 0, shown.err)
        assert not HARMFUL & set(shown.out)
    json.loads(shown.out)


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str], world: World, url: str) -> None:
    """Whatever was typed: neither a second line nor a control on stderr."""
    for text in CONTROLS:
        with pytest.raises(SystemExit):
            main(["period", "dispute", text, "--reason", "why", "--ledger", url])
        shown = capsys.readouterr().err

        assert 1 == shown.count("\n")
        assert not HARMFUL & set(shown)


def test_statements_hold_it_in_every_form(world: World, tmp_path: Path) -> None:
    """The page escapes it, the table for spreadsheets is whole, and what is signed is the name itself."""
    with world.books.ledger.database.read() as connection:
        documents = {
            client: statements.issue(connection, "first", client, SigningKey.load(tmp_path / "signing.key"))
            for client in names()
        }
    for client, name in names().items():
        document = documents[client]
        page = Document(statement_page.page(document))

        assert (client, name) == (document["client"], document["name"])
        assert not HARMFUL & set(statement_page.page(document))
        assert " ".join(one_line(name).split()) in page.words
        assert 1 + len(document["money"]) == len(list(csv.reader(io.StringIO(statement_page.table(document)))))


def test_downloads_have_a_name_that_is_no_second_header(sign_in: SignIn, world: World) -> None:
    """A client's id stands percent-encoded in the file's name."""
    operator = sign_in("operator")
    with TestClient(operator.app, headers={"Authorization": f"Bearer {world.keys['operator']}"}) as api:
        for client in names():
            answer = api.get("/api/v1/statements/first/" + "".join(f"%{byte:02X}" for byte in client.encode()))
            assert 200 == answer.status_code, (client, answer.text)
            _, _, name = answer.headers["content-disposition"].partition("filename*=UTF-8''")
            assert name.isascii()
            assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%-._~")


@pytest.mark.parametrize(
    "path",
    ["", "clients", "responses", "periods", "periods/first", "periods/second", "statements", "holds", "trust"],
)
def test_every_page_of_the_console_holds_it_as_text(sign_in: SignIn, world: World, path: str) -> None:
    """Well-formed, with no element or control that came from a text."""
    answer = sign_in("operator").get(f"/console/{path}", follow_redirects=True)
    page = Document.of(answer)

    assert "<script>alert" not in answer.text
    assert not (HARMFUL - {"\t"}) & set(answer.text)
    assert path in {"", "trust", "periods"} or ":smile:" in page.words


def test_exports_hold_it_as_text(sign_in: SignIn, world: World) -> None:
    """No cell begins a formula or a row, and every line of events is one event with the text itself."""
    operator = sign_in("operator")
    with TestClient(operator.app, headers={"Authorization": f"Bearer {world.keys['operator']}"}) as api:
        table = api.get("/api/v1/exports/entries.csv").text
        events = api.get("/api/v1/exports/receipts.jsonl").text
    rows = list(csv.reader(io.StringIO(table)))

    assert {len(rows[0])} == {len(row) for row in rows}
    for row in rows[1:]:
        numbers = {rows[0].index(name) for name in ("tokens", "credit")}
        for place, value in enumerate(row):
            assert place in numbers or not value.lstrip().startswith(("=", "+", "-", "@", "＝")), value
    found = [json.loads(line)["id"] for line in events.splitlines()]
    assert {*PRINTABLE} <= set(found)


def test_metrics_hold_it_as_a_label(world: World) -> None:
    """What the exporter tells parses, and each client's label reads back as its id."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(world.books.ledger, None))
    told = generate_latest(registry).decode()
    labels = {
        sample.labels["client"]
        for family in text_string_to_metric_families(told)
        for sample in family.samples
        if "client" in sample.labels
    }

    assert set(names()) <= labels


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *[(text, f"'{text}") for text in ("=1+1", "+1", "-1", "@SUM(A1)", "＝1", " =1", "\u00a0=1")],
        *[
            ("a\tb", "a\\tb"),
            ("\tx", "'\\tx"),
            ("\n=1", "'\\n=1"),
            ("a\r\n=1", "a\\r\\n=1"),
            ("\ufeff=1", "'\\ufeff=1"),
        ],
        *[("plain", "plain"), ("", ""), ("a=1", "a=1"), (-5, -5), (None, None), ("🏦", "🏦")],
    ],
)
def test_a_cell_is_no_formula(text: Any, shown: Any) -> None:
    """An apostrophe stands before what a spreadsheet would run; a control is shown; numbers and other texts stay."""
    assert shown == cell(text)


@ANY_TEXT
def test_json_says_the_same_without_the_control(text: str) -> None:
    """Escaped as JSON escapes, so that it reads back as the very text."""
    written = json_line(json.dumps({"text": text}, ensure_ascii=False))

    assert text == json.loads(written)["text"]
    assert not (HARMFUL | {"\n"}) & set(written)


def test_letters_that_need_joiners_keep_them() -> None:
    """Persian's and Hindi's joiners, emoji made of several, and spaces that do not break are no controls."""
    for text in ("می‌خواهم", "क्‍ष", "👩‍🔬", "1\u00a0234\u202f567", "é"):
        assert text == one_line(text) == many_lines(text) == cell(text)
