"""Whatever file a user gives to a command, what is wrong with it is one line on stderr and exit code 1."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from attribution.base.references import load_model
from deployment.cli.commands import app, main
from rewards.ledger.ledger import Ledger
from tests.attribution import consortia

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + step, 98 + step, b",".join([b"*%c" % (97 + step)] * 9)) for step in range(9)
)
FILES = {
    "missing": None,
    "empty": b"",
    "UTF-16": "pool: 1\n{}".encode("utf-16"),
    "Latin-1": b"name: caf\xe9\n",
    "NUL": b"\0\0\0",
    "array": b"[]",
    "number": b"1",
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "digits": b'{"prompt": ' + b"9" * 5000 + b"}",
    "no date": b"a: 2026-99-99\n",
    "unhashable key": b"1: 2\n? [a, b]\n: c\n",
    "tag": b"a: !!python/object:os.system x\n",
    "no base64": b"a: !!binary '%%%'\n",
    "aliases": BOMB,
    "itself": b"a: &a {b: *a}\n",
    "half a pair": b'{"prompt": "\\ud800", "response": "x"}',
}
COMMANDS = {
    "recipe": ["consortium", "build", "FILE", "--out", "o"],
    "data": ["consortium", "build", "recipe.yaml", "--out", "o"],
    "manifest": ["consortium", "verify", "bundle"],
    "experiment": ["evaluate", "E1", "--configs", "configs", "--data", "."],
    "settings": ["serve", "--config", "FILE"],
    "policy": ["period", "preview", "2026-11", "--policy", "FILE"],
    "proof": ["ledger", "check-proof", "FILE", "--public-key", "key.pub"],
    "statement": ["statement", "verify", "FILE", "--public-key", "key.pub"],
    "public key": ["statement", "verify", "key.pub", "--public-key", "FILE"],
    "signing key": ["ledger", "seal", "--key", "FILE"],
    "bundle": ["consortium", "show", "FILE"],
}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory) -> Path:
    """A prepared, empty ledger, to be copied."""
    path = tmp_path_factory.mktemp("prepared") / "ledger.db"
    Ledger.prepare(f"sqlite:///{path}")
    return path


@pytest.fixture
def here(tmp_path, monkeypatch, ledger) -> Path:
    """A working folder with a ledger, a recipe and a public key."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var").mkdir()
    shutil.copy(ledger, tmp_path / "var")
    (tmp_path / "recipe.yaml").write_text("consortium: x\nclients: [{id: a, name: A, data: FILE}]\n")
    (tmp_path / "key.pub").write_text("demo+5d3f3b7c+AZZZ\n")
    for folder in ("bundle", "configs"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_file_that_is_none_is_one_line(here, capsys, command, content):
    """No traceback, no second line, and the file is named, whatever the file holds."""
    for name in ("FILE", "bundle/consortium.json", "configs/E1.yaml"):
        if content is not None:
            (here / name).write_bytes(content)
    with pytest.raises(SystemExit) as end:
        main(command)

    complaint = capsys.readouterr().err
    assert 1 == end.value.code, complaint
    assert 1 == len(complaint.splitlines()), complaint
    assert complaint.startswith("protoken: ")
    assert "unforeseen" not in complaint


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("rank: 1000000000000", "should be less"),
        ("learning_rate: 1.0e+300", "should be less"),
        ("learning_rate: .inf", "should be a finite number"),
    ],
)
def test_a_setting_beyond_all_models_is_one_line(here, capsys, setting, what):
    """A number that no memory and no float32 could hold is refused by its field, before anything is loaded."""
    (here / "recipe.yaml").write_text(f"consortium: x\n{setting}\nclients: [{{id: a, name: A, data: FILE}}]\n")
    with pytest.raises(SystemExit):
        main(["consortium", "build", "recipe.yaml", "--out", "o"])

    assert capsys.readouterr().err.startswith(f"protoken: recipe.yaml: {setting.partition(':')[0]}: Input {what}")


def test_an_adapter_of_another_base_is_told_beside_the_output(tmp_path, capsys):
    """`consortium import` warns on stderr, with both names, and its JSON stays JSON."""
    base = consortia.save_base(consortia.base_model("llama", tied=False), tmp_path / "base")
    get_peft_model(load_model(tmp_path / "base"), LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(
        tmp_path / "a"
    )
    configuration = tmp_path / "a" / "adapter_config.json"
    named = json.loads(configuration.read_text()) | {"base_model_name_or_path": "acme/Other-7B"}
    configuration.write_text(json.dumps(named))
    arguments = ["--base", base, "--client", f"a={tmp_path / 'a'}", "--out", str(tmp_path / "o"), "--json"]
    with pytest.raises(SystemExit) as end:
        main(["consortium", "import", *arguments])

    out, err = capsys.readouterr()
    assert 0 == (end.value.code or 0)
    assert "a" == json.loads(out)["clients"][0]["id"]
    assert any(
        line.startswith("warning: client 'a'") and "'acme/Other-7B'" in line and base in line
        for line in err.splitlines()
    )


def test_whole_checkpoints_are_imported_with_full_and_named_without(tmp_path, capsys):
    """`consortium import` says of a whole model what to add, and of an adapter what to leave out."""
    base = consortia.save_base(consortia.base_model("llama", tied=False), tmp_path / "base")
    consortia.save_base(consortia.base_model("llama", 1, tied=False), tmp_path / "a")
    arguments = [
        "consortium",
        "import",
        "--base",
        base,
        "--client",
        f"a={tmp_path / 'a'}",
        "--out",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "import whole models with --full" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--full", "--json"])

    assert 0 == (end.value.code or 0)
    assert [("a", "full")] == [(each["id"], each["kind"]) for each in json.loads(capsys.readouterr().out)["clients"]]


def test_two_bundles_are_compared_as_a_table_and_as_json(tmp_path, capsys):
    """`consortium diff` names who joined and who left; figures that there are not are a dash, or null."""
    model = consortia.base_model("llama")
    updates = consortia.updates(model)
    for folder, clients in (("one", "ab"), ("two", "bc")):
        consortia.write_consortium(tmp_path / folder, model, {client: updates[client] for client in clients})
    arguments = ["consortium", "diff", *(str(tmp_path / folder / "bundle") for folder in ("one", "two"))]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main([*arguments, *more])
        assert 0 == (end.value.code or 0)
    table, _, text = capsys.readouterr().out.partition("{")
    states = {each["client"]: each["state"] for each in json.loads("{" + text)["clients"]}

    assert {"a": "left", "b": "unchanged", "c": "joined"} == states
    assert all(f" {state} " in table for state in states.values())
    assert "–" in table


@pytest.fixture
def failing() -> Iterator[None]:
    """A command that fails as no command should."""

    def fail(kind: str) -> None:
        raise {"fault": ZeroDivisionError("by\nnought"), "disk": OSError(28, "No space left on device", "a.txt")}[kind]

    app.command("fail")(fail)
    yield
    app.registered_commands.pop()


class TestTheLastWall:
    """What nobody foresaw is one line, too, and says how to see more."""

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("fault", "by nought (ZeroDivisionError, unforeseen; PROTOKEN_TRACEBACK=1 shows where it arose)"),
            ("disk", "a.txt: No space left on device"),
        ],
    )
    def test_it_is_one_line(self, failing, capsys, kind, expected):
        """A fault of ours is told with its class and the hint; what the system says stands as it is."""
        with pytest.raises(SystemExit) as end:
            main(["fail", kind])

        assert (1, f"protoken: {expected}\n") == (end.value.code, capsys.readouterr().err)

    def test_the_hint_is_true(self, failing, monkeypatch):
        """With PROTOKEN_TRACEBACK the failure comes as it is."""
        monkeypatch.setenv("PROTOKEN_TRACEBACK", "1")
        with pytest.raises(ZeroDivisionError):
            main(["fail", "fault"])
