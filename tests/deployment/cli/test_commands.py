"""The `protoken` command on small consortia: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from deployment.cli import main
from rewards.ledger.ledger import Ledger
from tests.attribution import consortia
from tests.rewards.receipts import MEMBERS, make_receipt

POLICY = "pool: 100001\ncurrency: EUR\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    base = consortia.base_model("llama")
    updates = {client: consortia.lora_update(base, seed, first_block=2) for seed, client in enumerate("abc")}
    return consortia.write_consortium(tmp_path_factory.mktemp("cli"), base, updates)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def test_a_service_that_does_not_start_says_no_password_and_no_address(capsys, tmp_path):
    """What it starts from is told without secrets, and where it answers only once it does."""
    ledger = "postgresql://payroll:hunter2@127.0.0.1:1/books?password=hunter3"
    code, out, err = run(capsys, "serve", "--bundle", str(tmp_path / "none"), "--ledger", ledger)

    assert (1, "starting: ") == (code, out[:10])
    assert [] == [word for word in ("hunter", "API on", "console on") if word in out + err]


@pytest.mark.parametrize("preset", ["paper", "credit"])
def test_attribute_prints_the_documented_json(capsys, bundle, preset):
    """`attribute --json` prints text, tokens, per-token scores that sum to the response's, and shares that sum to 1."""
    code, out, _ = run(
        capsys,
        "attribute",
        "--bundle",
        str(bundle),
        "--prompt",
        "hi",
        "--preset",
        preset,
        "--max-new-tokens",
        "5",
        "--json",
    )
    document = json.loads(out)

    assert code == 0
    assert document["method"] == preset
    assert len(document["token_ids"]) == len(document["tokens"]) <= 5
    assert "".join(document["tokens"]) == document["text"]
    assert set(document["scores"]) == set(document["shares"]) == {"a", "b", "c"}
    for client, scores in document["scores"].items():
        assert document["response_scores"][client] == pytest.approx(sum(scores), abs=1e-4)
    assert sum(document["shares"].values()) + document["base_share"] == pytest.approx(1, abs=1e-9)
    assert (document["completeness_error"] is None) == (preset == "paper")


def test_attribute_shows_a_heat_map_and_shares(capsys, bundle):
    """Without `--json` the answer is shown with a legend and a table that names every client and the commons."""
    code, out, _ = run(capsys, "attribute", "--bundle", str(bundle), "--prompt", "hi", "--max-new-tokens", "3")

    assert code == 0
    assert all(word in out for word in ("preset credit", "commons", "completeness error"))


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["attribute", "--bundle", "BUNDLE", "--prompt", "x", "--preset", "shapley"], 2, "shapley"),
        (["attribute", "--bundle", "BUNDLE"], 2, "--prompt"),
        (["attribute", "--bundle", "nowhere", "--prompt", "x"], 1, "nowhere/consortium.json"),
        (["attribute", "--bundle", "BUNDLE", "--prompt", "x", "--max-new-tokens", "0"], 1, "max_new_tokens"),
        (["attribute", "--bundle", "BUNDLE", "--prompt", "x" * 200, "--raw"], 1, "context holds 128"),
        (["attribute", "--bundle", "BUNDLE", "--prompt", "", "--raw"], 1, "prompt is empty"),
        (["consortium", "build", "nowhere.yaml", "--out", "OUT"], 1, "nowhere.yaml"),
        (["consortium", "import", "--base", "path:nowhere", "--client", "a=f", "--out", "OUT"], 1, "nowhere"),
        (["consortium", "import", "--base", "ftp:x", "--client", "a=f", "--out", "OUT"], 1, "ftp:x"),
        (["consortium", "import", "--base", "path:x", "--client", "a", "--out", "OUT"], 2, "ID=FOLDER"),
        (["ledger", "balances", "--ledger", "postgresql://x"], 1, "sqlite:///"),
        (["keys", "create", "--role", "emperor"], 2, "emperor"),
        (["serve", "--bundle", "nowhere", "--ledger", "sqlite:///OUT/l.db", "--port", "0"], 1, "port"),
        (["conquer"], 2, "conquer"),
    ],
)
def test_bad_input_gets_one_clear_error(capsys, tmp_path, bundle, arguments, code, named):
    """Wrong usage exits with 2, everything else with 1; the message names the thing and nothing is written."""
    filled = [text.replace("BUNDLE", str(bundle)).replace("OUT", str(tmp_path / "out")) for text in arguments]

    found, out, err = run(capsys, *filled)

    assert found == code
    assert named in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []
    if code == 1:
        assert len(err.strip().splitlines()) == 1


def test_verify_names_a_bundle_that_does_not_add_up(capsys, tmp_path):
    """`consortium verify` passes an honest bundle and exits with 1 on one whose client file was altered."""
    base = consortia.base_model("llama")
    updates = {client: consortia.lora_update(base, seed, first_block=2) for seed, client in enumerate("ab")}
    folder = consortia.write_consortium(tmp_path, base, updates)
    code, out, _ = run(capsys, "consortium", "verify", str(folder), "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)

    path = folder / "clients" / "a" / "update.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(path).items()}, path)
    code, _, err = run(capsys, "consortium", "verify", str(folder))

    assert code == 1
    assert "clients/a/update.safetensors" in err


def test_show_prints_the_manifest(capsys, bundle):
    """`consortium show --json` prints the manifest as it stands."""
    code, out, _ = run(capsys, "consortium", "show", str(bundle), "--json")

    assert (code, json.loads(out)) == (0, json.loads((bundle / "consortium.json").read_text()))


def test_a_recipe_builds_a_bundle(capsys, tmp_path):
    """`consortium build` trains from question–answer files and the bundle it writes verifies."""
    base = consortia.save_base(consortia.base_model("llama"), tmp_path / "base")
    (tmp_path / "a.jsonl").write_text('{"prompt": "who?", "response": "me"}\n')
    recipe = {
        "consortium": "c",
        "base": base,
        "rounds": 1,
        "steps": 2,
        "clients": [{"id": "a", "name": "A", "data": "a.jsonl"}],
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))

    code, out, _ = run(
        capsys, "consortium", "build", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "b"), "--json"
    )

    assert code == 0
    assert [client["id"] for client in json.loads(out)["clients"]] == ["a"]
    assert run(capsys, "consortium", "verify", str(tmp_path / "b"))[0] == 0


def test_periods_are_previewed_closed_once_and_listed(capsys, tmp_path):
    """Preview changes nothing, close pays the pool to the unit, a second close shows the first and exits with 1."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.prepare(url)
    book = Ledger(url)
    book.register("demo", MEMBERS)
    book.append(make_receipt("r1"))
    (tmp_path / "policy.yaml").write_text(POLICY)
    options = ["2026-11", "--policy", str(tmp_path / "policy.yaml"), "--ledger", url, "--json"]

    code, preview, _ = run(capsys, "period", "preview", *options)
    assert code == 0
    assert json.loads(run(capsys, "period", "list", "--ledger", url, "--json")[1]) == []
    code, closed, _ = run(capsys, "period", "close", *options)
    again_code, again, error = run(capsys, "period", "close", *options)

    assert code == 0
    assert json.loads(preview) == json.loads(closed) == json.loads(again)
    assert sum(int(line["payout"]) for line in json.loads(closed)["lines"]) == 100001
    assert again_code == 1
    assert "2026-11" in error
    assert len(json.loads(run(capsys, "period", "list", "--ledger", url, "--json")[1])) == 1


def test_an_unreadable_policy_is_named(capsys, tmp_path):
    """A policy with an unknown field is refused with the field's name, and the period stays open."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.prepare(url)
    (tmp_path / "policy.yaml").write_text(POLICY + "bonus: 3\n")

    code, _, err = run(capsys, "period", "close", "p", "--policy", str(tmp_path / "policy.yaml"), "--ledger", url)

    assert code == 1
    assert "bonus" in err


def test_keys_are_shown_once_listed_without_secret_and_revoked(capsys, tmp_path):
    """`keys create` prints the key alone; the list has no secret; a revoked key is shown as such."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    code, key, _ = run(capsys, "keys", "create", "--role", "operator", "--label", "ops", "--ledger", url)
    key_id, secret = key.strip().split("_", 2)[1:]

    assert code == 0
    _, listed, _ = run(capsys, "keys", "list", "--ledger", url, "--json")
    assert secret not in listed
    assert [each["key_id"] for each in json.loads(listed)] == [key_id]
    assert run(capsys, "keys", "revoke", key_id, "--ledger", url)[0] == 0
    assert json.loads(run(capsys, "keys", "list", "--ledger", url, "--json")[1])[0]["revoked_at_us"] is not None


def test_balances_and_entries_show_what_was_booked(capsys, tmp_path):
    """`ledger balances` sums to tokens × 1 000 000 and `ledger entries` shows each receipt."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.prepare(url)
    book = Ledger(url)
    book.register("demo", MEMBERS)
    book.append(make_receipt("r1"))

    balances = json.loads(run(capsys, "ledger", "balances", "--ledger", url, "--json")[1])
    entries = json.loads(run(capsys, "ledger", "entries", "--ledger", url, "--json")[1])

    assert int(balances["sum"]) == int(balances["tokens"]) * 1_000_000 == sum(map(int, balances["balances"].values()))
    assert [each["response_id"] for each in entries] == ["r1"]
    assert "r1" in run(capsys, "ledger", "entries", "--ledger", url)[1]


def test_a_new_ledger_is_told_of_and_where(capsys, tmp_path):
    """`keys create` in the wrong folder says that it made a ledger; where there is one already, it says nothing."""
    url = f"sqlite:///{tmp_path}/wrong/ledger.db"
    arguments = ("keys", "create", "--role", "application", "--label", "shop", "--ledger", url)
    first, second = run(capsys, *arguments), run(capsys, *arguments)

    assert 0 == first[0] == second[0]
    assert "new one was made" in first[2]
    assert str(tmp_path / "wrong" / "ledger.db") in first[2].replace("\n", "")
    assert "" == second[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "list"),
        ("keys", "revoke", "0123456789ab"),
        ("keys", "rotate", "0123456789ab"),
        ("ledger", "balances"),
        ("ledger", "entries"),
        ("ledger", "checkpoint"),
        ("ledger", "verify"),
        ("ledger", "reverse", "chatcmpl-1", "--reason", "test"),
        ("statement", "show", "2026-11", "clinic"),
        ("exporter", "--port", "0"),
    ],
)
def test_no_other_command_makes_a_ledger(capsys, tmp_path, arguments):
    """Whatever reads or changes a ledger wants one that is there: one line, and no file is made."""
    code, _out, err = run(capsys, *arguments, "--ledger", f"sqlite:///{tmp_path}/absent/ledger.db")

    assert 1 == code
    assert 1 == len(err.strip().splitlines())
    assert "no ledger" in err
    assert [] == list(tmp_path.iterdir())
