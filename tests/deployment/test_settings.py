"""Settings: where they come from, what overrides what, and what is refused."""

import os
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from attribution import model, records
from attribution.scoring.credit_preset import USUAL_EFFORT, Effort
from deployment import settings as deployment_settings
from deployment.errors import SettingsError
from deployment.replica.capacity import Capacity
from deployment.settings import Settings, find_setting, load_settings, pepper_path

SHIPPED = Path(__file__).parents[2] / "configs" / "serve.yaml"


def test_shipped_file_says_the_defaults() -> None:
    """`configs/serve.yaml` is valid, names every setting, and differs from the defaults in nothing but the bundle."""
    shipped = load_settings(SHIPPED, environment={})

    assert Settings(bundle=shipped.bundle) == shipped
    assert all(f"{name}:" in SHIPPED.read_text(encoding="utf-8") for name in Settings.model_fields)


def test_what_other_modules_say_of_a_setting_is_the_same() -> None:
    """What scoring and a replica do if nobody says is what the service does: settings load no torch to ask them."""
    default = {name: field.default for name, field in Settings.model_fields.items()}

    assert Effort(default["nodes"], default["tolerance"]) == USUAL_EFFORT
    assert Capacity(1, 1, 1, default["max_unscored"], default["max_batch_tokens"]) == Capacity(1, 1, 1)
    assert {*get_args(records.Method)} == {*get_args(deployment_settings.Method)}
    assert {*get_args(model.DType)} == {*get_args(deployment_settings.DType)}


def test_environment_overrides_file_and_arguments_override_both(tmp_path: Path) -> None:
    """The nearest word wins; an empty variable and an argument of None are no words."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\nport: 1\nreplicas: 3\nmetrics_port: 4\n", encoding="utf-8")
    environment = {"PROTOKEN_PORT": "2", "PROTOKEN_METRICS_PORT": "0", "PROTOKEN_HOST": "", "OTHER": "x"}
    settings = load_settings(file, environment=environment, port=5, replicas=None)

    assert (5, 3, 0, "127.0.0.1") == (settings.port, settings.replicas, settings.metrics_port, settings.host)


def test_parts_of_a_setting_are_variables_of_their_own(tmp_path: Path) -> None:
    """Each over what the file says of it; the engine's key is no setting, wherever it is given."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\nengine: {kind: openai, url: 'http://a:1', model: m}\n", encoding="utf-8")
    environment = {"PROTOKEN_ENGINE_URL": "https://b/v1", "PROTOKEN_ENGINE_API_KEY": "sk-secret"}
    settings = load_settings(file, environment=environment)

    assert ("openai", "https://b/v1", "m") == (settings.engine.kind, settings.engine.url, settings.engine.model)
    assert "secret" not in repr(settings)
    whole = {"PROTOKEN_BUNDLE": "b", "PROTOKEN_ENGINE_KIND": "openai", "PROTOKEN_ENGINE_URL": "http://a"}
    assert "http://a" == load_settings(environment=whole).engine.url


def test_paths_are_made_absolute() -> None:
    """Replicas run elsewhere, so a relative path means the folder where the service was started."""
    settings = load_settings(environment={"PROTOKEN_BUNDLE": "b", "PROTOKEN_LEDGER": "sqlite:///l.db"})

    assert (Path.cwd() / "b", f"sqlite:///{Path.cwd()}/l.db") == (settings.bundle, settings.ledger)
    assert settings.ledger == find_setting("ledger", "sqlite:///l.db")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port: 80", "bundle"),
        ("bundle: b\nport: 0", "port"),
        ("bundle: b\nport: high", "PROTOKEN_PORT"),
        ("bundle: b\nprot: 80", "prot"),
        ("bundle: b\nledger: postgresql://x", "postgresql"),
        ("bundle: b\nledger: 'sqlite:///:memory:'", "memory"),
        ("bundle: b\nmax_batch: 0", "max_batch"),
        ("bundle: b\ngpus_per_replica: 2", "one model on one device, so that 1 is the most"),
        ("bundle: b\nnodes: 0", "nodes"),
        ("bundle: b\nnodes: 65", "nodes"),
        ("bundle: b\nmax_batch: 010", "010 is no decimal number"),
        ("bundle: b\nkeep_alive_s: 1:30", "1:30 is no decimal number"),
        ("bundle: b\nkeep_alive_s: 1:30.5", "1:30.5 is no decimal number"),
        ("bundle: b\nport: 8000\nport: 8001", "port is given twice"),
        ("bundle: b\nengine: {kind: openai}", "needs its url"),
        ("bundle: b\nengine: {url: 'http://127.0.0.1:1'}", "of kind openai"),
        ("bundle: b\nengine: {kind: openai, url: 'file:///x'}", "PROTOKEN_ENGINE_URL"),
        ("bundle: b\nengine: {kind: openai, url: 'http://me:secret@x'}", "without login"),
        (
            "bundle: b\nengine: {kind: openai, url: 'http://x', api_key: sk}",
            "api_key' is not known; there are kind, url",
        ),
        ("bundle: b\nengine: vllm", "engine"),
        ("- bundle", "list"),
        ("bundle: [", "YAML"),
    ],
)
def test_bad_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    """One clear error names the setting or the file."""
    file = tmp_path / "serve.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(SettingsError, match=named):
        load_settings(file, environment={})


def test_an_error_says_what_stands_where(tmp_path: Path) -> None:
    """The value and its place: the file, the environment, or the command, whichever was the last word."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\nport: 0\nscorers: -1\n", encoding="utf-8")
    with pytest.raises(SettingsError) as of_file:
        load_settings(file, environment={})
    with pytest.raises(SettingsError) as of_environment:
        load_settings(file, environment={"PROTOKEN_PORT": "eighty", "PROTOKEN_SCORERS": "0"})
    with pytest.raises(SettingsError) as of_command:
        load_settings(file, environment={"PROTOKEN_PORT": "80", "PROTOKEN_SCORERS": "0"}, port=70_000)

    assert f"'port' (environment PROTOKEN_PORT) is 0 in {file}: " in str(of_file.value)
    assert f"'scorers' (environment PROTOKEN_SCORERS) is -1 in {file}: " in str(of_file.value)
    assert "is 'eighty' in the environment: " in str(of_environment.value)
    assert "is 70000 as given to the command: " in str(of_command.value)


@pytest.mark.parametrize(
    "text",
    [
        "ledger: postgres://me:hush@x",
        "ledger: postgresql://me:hush@x/db: y",
        "ledger: 'postgresql://me:hush@x/db",
        "ledger: postgresql://me:hush@x/db\nledger: postgresql://me:hush@x/db",
        "replica_ledger: hush",
        "engine: {kind: openai, url: hush}",
        "engine: {kind: http://me:hush@x}",
        "engine: {model: {api_key: hush}}",
        "engine: hush",
        "policy:\n  ledger: postgresql://me:hush@x/db",
        "spool: [postgresql://me:hush@x]",
        "port: postgresql://me:hush@x/db",
        "cors_origins: ['https://me:hush@x']",
    ],
)
def test_an_error_does_not_repeat_a_password(tmp_path: Path, text: str) -> None:
    """What an URL may hold stays where it is, be it of a setting that is wrong or in a line that is no YAML."""
    file = tmp_path / "serve.yaml"
    file.write_text(f"bundle: b\n{text}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_settings(file, environment={})

    assert "hush" not in str(refused.value)


def test_what_is_no_yaml_is_told_by_its_line(tmp_path: Path) -> None:
    """And by what is wrong there, in one line."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\nledger: a: b\n", encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_settings(file, environment={})

    assert f"settings file {file} is not YAML: line 2: mapping values are not allowed here" == str(refused.value)


def test_an_unknown_setting_is_looked_for_in_the_file(tmp_path: Path) -> None:
    """However the environment spells it: of what it has nobody asks but by name."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\nprot: 80\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=rf"'prot' is not known; .* \(it stands in {file}\)$"):
        load_settings(file, environment={"PROTOKEN_PROT": "80"})


def test_an_item_of_a_list_is_told_by_the_variable_of_the_list(tmp_path: Path) -> None:
    """There is none of its own."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\ncors_origins: [nonsense]\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"'cors_origins' \(environment PROTOKEN_CORS_ORIGINS\) is 'nonsense' in "):
        load_settings(file, environment={})


def test_one_setting_is_found_beside_an_engine_of_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind in the file and its address in the environment are one engine, for whoever asks for something else."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\nport: 81\nengine: {kind: openai}\n", encoding="utf-8")
    monkeypatch.setenv("PROTOKEN_ENGINE_URL", "http://127.0.0.1:8001")

    assert 81 == find_setting("port", None, file)
    assert "sqlite:////l.db" == find_setting("ledger", "sqlite:////l.db"), "who names no file has no engine"


def test_settings_that_do_not_go_together_are_told_in_our_words(tmp_path: Path) -> None:
    """A rule of several settings names no single one, and is told without a library's prefix."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: b\nscorers: 1\nengine: {kind: openai, url: 'http://x'}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^scorers are for the engine embedded"):
        load_settings(file, environment={})


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A settings file that is not there is named."""
    with pytest.raises(SettingsError, match=r"absent\.yaml"):
        load_settings(tmp_path / "absent.yaml", environment={})


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after it was read."""
    with pytest.raises(ValidationError):
        Settings(bundle=Path("b")).port = 1


def test_pepper_lies_beside_a_file_and_never_in_a_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where deployment/README.md says: where it is told, else beside an SQLite ledger, else in `var/pepper`."""
    monkeypatch.delenv("PROTOKEN_PEPPER_FILE", raising=False)
    monkeypatch.chdir(tmp_path)

    assert Path("/a/ledger.db.pepper") == pepper_path("sqlite:////a/ledger.db")
    assert tmp_path / "var" / "pepper" == pepper_path("postgresql://service@host/books")
    assert Path("/b") == pepper_path("sqlite:////a/ledger.db", Path("/b"))


def test_more_consortia_are_folders_in_a_list(tmp_path: Path) -> None:
    """By the file, and by the environment apart by commas; the processors are divided among the replicas of all."""
    file = tmp_path / "serve.yaml"
    file.write_text("bundle: a\nmore_bundles: [b, c]\n", encoding="utf-8")
    by_file = load_settings(file, environment={})
    by_environment = load_settings(environment={"PROTOKEN_BUNDLE": "a", "PROTOKEN_MORE_BUNDLES": "b, c"})

    assert tuple(Path.cwd() / name for name in "abc") == by_file.bundles
    assert by_file == by_environment
    assert max(1, (os.cpu_count() or 1) // 3) == by_file.processors
