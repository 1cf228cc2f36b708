"""A setting means the same in every command: its option, else the environment, else the file of --config."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from deployment.cli.commands import app, main
from deployment.cli.on_demand import load_command
from deployment.errors import SettingsError
from deployment.settings import Settings
from rewards.ledger.ledger import Ledger
from tests.rewards.receipts import MEMBERS, make_receipt

ROOT = Path(__file__).parents[3]
USES: dict[str, dict[str, str]] = {
    "attribute": {"bundle": "bundle"},
    "trace": {"ledger": "ledger", "texts": "texts", "bundle": "bundle"},
    "evaluate": {"bundle": "bundle"},
    "serve": {"ledger": "ledger"},
    "doctor": {},
    "exporter": {"ledger": "ledger", "metrics_port": "port", "policy": "policy"},
    "dashboards": {},
    "demo": {},
    "consortium build": {},
    "consortium import": {},
    "consortium verify": {},
    "consortium show": {},
    "consortium diff": {},
    "consortium publish": {"ledger": "ledger"},
    "consortium rollback": {"ledger": "ledger"},
    "consortium rounds": {"ledger": "ledger"},
    "member keygen": {},
    "member sign": {},
    "member check": {},
    "ledger seal": {"ledger": "ledger", "signing_key": "key"},
    "ledger checkpoint": {"ledger": "ledger"},
    "ledger proof": {"ledger": "ledger"},
    "ledger bundle-proof": {"ledger": "ledger"},
    "ledger check-proof": {},
    "ledger verify": {"ledger": "ledger"},
    "ledger recompute": {"ledger": "ledger", "texts": "texts", "bundle": "bundle"},
    "ledger backup": {"ledger": "ledger"},
    "ledger restore": {"ledger": "ledger"},
    "ledger migrate": {"ledger": "ledger"},
    "ledger balances": {"ledger": "ledger"},
    "ledger entries": {"ledger": "ledger"},
    "ledger reverse": {"ledger": "ledger"},
    "period list": {"ledger": "ledger"},
    "period preview": {"ledger": "ledger", "policy": "policy"},
    "period close": {"ledger": "ledger", "policy": "policy"},
    "period dispute": {"ledger": "ledger"},
    "period finalise": {"ledger": "ledger"},
    "period payouts": {"ledger": "ledger"},
    "period pay": {"ledger": "ledger"},
    "explain": {"ledger": "ledger"},
    "hold place": {"ledger": "ledger"},
    "hold release": {"ledger": "ledger"},
    "hold list": {"ledger": "ledger"},
    "statement issue": {"ledger": "ledger", "signing_key": "key"},
    "statement show": {"ledger": "ledger", "signing_key": "key"},
    "statement verify": {},
    "keys create": {"ledger": "ledger", "pepper_file": "pepper_file", "signing_key": "out"},
    "keys rotate": {"ledger": "ledger", "pepper_file": "pepper_file"},
    "keys revoke": {"ledger": "ledger"},
    "keys list": {"ledger": "ledger"},
}
"""Every command, with its settings and the parameter that each is."""
ALL = {"serve", "doctor"}
"""These read all settings, by `load_settings`."""
APART = {
    ("evaluate", "ledger"): "books a report where it is typed, and not since a service has one",
    ("exporter", "host"): "asks for no key, so that it does not follow the service to another address",
    ("attribute", "nodes"): "tries one prompt, whatever the service does",
}
VALUES = {
    "ledger": ("sqlite:////option/l.db", "sqlite:////environment/l.db", "sqlite:////file/l.db"),
    "metrics_port": ("1001", "1002", "1003"),
    **dict.fromkeys(
        ("bundle", "pepper_file", "policy", "signing_key", "texts"), ("/option/x", "/environment/x", "/file/x")
    ),
}
PAIRS = [(command, setting) for command, settings in USES.items() for setting in settings]


def _commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    for name, found in command.commands.items():
        inner = load_command(found)
        if hasattr(inner, "commands"):
            yield from _commands(inner, *path, name)
        else:
            yield " ".join((*path, name)), inner


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting comes from the machine on which the test runs."""
    monkeypatch.chdir(tmp_path)
    for name in (*Settings.model_fields, "config"):
        monkeypatch.delenv(f"PROTOKEN_{name.upper()}", raising=False)


def _value(command: str, setting: str, *options: str) -> str:
    """What a command would get of a setting; what else it needs is given."""
    given, wanted = COMMANDS[command], USES[command]
    words: list[str] = []
    for each in given.params:
        if each.required and each.param_type_name == "argument":
            words.append("x")
        elif each.required:
            words += [each.opts[0], "x"]
    if "policy" in wanted and setting != "policy":
        words += ["--policy", "/needed"]
    if "bundle" in wanted and setting != "bundle":
        words += ["--bundle", "/needed"]
    return str(given.make_context(command, [*words, *options]).params[wanted[setting]])


def _flag(command: str, setting: str) -> str:
    (flag,) = [each.opts[0] for each in COMMANDS[command].params if each.name == USES[command][setting]]
    return str(flag)


def test_the_table_names_every_command_and_every_setting_of_it() -> None:
    """A new command is added to it; an option that is spelled as a setting is one, or the table says why not."""
    assert set(USES) == set(COMMANDS)
    for name, command in COMMANDS.items():
        options = {each.name for each in command.params if each.param_type_name == "option"}
        named = (options & set(Settings.model_fields)) - set(USES[name].values())
        if name not in ALL:
            assert set() == {each for each in named if (name, each) not in APART}, name
        assert bool(USES[name] or name in ALL) == any("--config" in each.opts for each in command.params), name


@pytest.mark.parametrize(("command", "setting"), PAIRS)
def test_a_setting_is_the_same_by_option_environment_and_file(
    command: str, setting: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The option counts before the environment, that before the file, wherever --config stands and however it is named.

    And with none of them the setting has its default.
    """
    option, environment, file = VALUES[setting]
    config = tmp_path / "serve.yaml"
    config.write_text(f"{setting}: {file}\n", encoding="utf-8")
    by_file = _value(command, setting, "--config", str(config))
    monkeypatch.setenv("PROTOKEN_CONFIG", str(config))
    by_named_file = _value(command, setting)
    monkeypatch.setenv(f"PROTOKEN_{setting.upper()}", environment)
    by_environment = _value(command, setting)
    by_option = _value(command, setting, _flag(command, setting), option)

    assert (file, file, environment, option) == (by_file, by_named_file, by_environment, by_option)


@pytest.mark.parametrize(("command", "setting"), PAIRS)
def test_a_file_that_is_wrong_is_refused_by_every_command(command: str, setting: str, tmp_path: Path) -> None:
    """With the name of what is unknown or out of range, also where the command does not need that."""
    config = tmp_path / "serve.yaml"
    for text, named in (("prot: 80", "'prot' is not known"), ("replicas: 0", "'replicas'")):
        config.write_text(text, encoding="utf-8")
        with pytest.raises(SettingsError, match=named):
            _value(command, setting, "--config", str(config))
    with pytest.raises(SettingsError, match="absent"):
        _value(command, setting, "--config", str(tmp_path / "absent.yaml"))


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    shown = capsys.readouterr()
    assert 0 == (ended.value.code or 0), shown.err
    return shown.out


def test_the_books_are_kept_by_one_file_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Ledger, pepper, signing key and policy of a settings file: keys, seal, close and statements need no option."""
    (tmp_path / "policy.yaml").write_text("currency: EUR\npool: 1000\n", encoding="utf-8")
    names = {"ledger": "sqlite:///books.db", "pepper_file": "secret", "signing_key": "own.key", "policy": "policy.yaml"}
    (tmp_path / "serve.yaml").write_text(json.dumps(names), encoding="utf-8")
    config = ("--config", "serve.yaml")

    _run(capsys, "keys", "create", "--signing", "--name", "mine/ledger", *config)
    _run(capsys, "keys", "create", "--role", "operator", *config)
    book = Ledger(f"sqlite:///{tmp_path}/books.db")
    book.register("demo", MEMBERS)
    book.append(make_receipt("r1"))
    _run(capsys, "period", "close", "2026-11", *config)
    sealed = _run(capsys, "ledger", "seal", *config)
    issued = _run(capsys, "statement", "issue", "2026-11", "--out", "statements", *config)
    shown = _run(capsys, "statement", "show", "2026-11", "clinic", *config)

    assert sealed.startswith("sealed mine/ledger at ")
    assert "statements/clinic.json" in issued
    assert "clinic" in shown
    assert {"policy.yaml", "serve.yaml", "books.db", "secret", "own.key", "statements"} == {
        each.name for each in tmp_path.iterdir() if not each.name.startswith("books.db-")
    }


def test_the_environment_names_the_signing_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PROTOKEN_SIGNING_KEY holds for `ledger seal` and `keys create --signing`, as it does for a service."""
    monkeypatch.setenv("PROTOKEN_LEDGER", "sqlite:///books.db")
    monkeypatch.setenv("PROTOKEN_SIGNING_KEY", "named.key")
    monkeypatch.setenv("PROTOKEN_PEPPER_FILE", "secret")  # set, and not typed: no reason to refuse --signing
    _run(capsys, "keys", "create", "--signing", "--name", "mine/ledger")
    sealed = _run(capsys, "ledger", "seal")

    assert "mine/ledger" in sealed
    assert (tmp_path / "named.key").is_file()
    assert not (tmp_path / "var").exists()


def test_a_policy_that_nothing_names_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the option, the variable and the setting."""
    with pytest.raises(SystemExit) as ended:
        main(["period", "close", "2026-11"])
    complaint = " ".join(capsys.readouterr().err.replace("│", " ").split())

    assert 2 == ended.value.code
    assert all(word in complaint for word in ("--policy", "PROTOKEN_POLICY", "--config"))


def test_holds_are_placed_and_released_as_the_page_writes_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The two lines of rewards/README.md, with the id that the first prints, on a ledger with that client."""
    monkeypatch.setenv("PROTOKEN_LEDGER", f"sqlite:///{tmp_path}/books.db")
    Ledger.prepare(f"sqlite:///{tmp_path}/books.db")
    Ledger(f"sqlite:///{tmp_path}/books.db").register("demo", MEMBERS)
    page = (ROOT / "rewards" / "README.md").read_text(encoding="utf-8").splitlines()
    place, release = [
        shlex.split(line, comments=True)[1:]
        for line in page
        if line.startswith(("protoken hold place", "protoken hold r"))
    ]

    hold = _run(capsys, *place).strip()
    released = _run(capsys, *(hold if word == "HOLD_ID" else word for word in release))

    assert f"released {hold}\n" == released
