"""A member makes a key, signs what it sends, and checks by itself that the served bundle credits exactly that."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from attribution.base.references import load_model
from attribution.bundle.bundle import open_bundle
from deployment.members.recorded_signatures import sent_updates
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.store.publications import publish
from tests.attribution import consortia
from tests.attribution.importers.recordings import ADAPTER, Recording, adapter_start
from tests.deployment.cli.test_commands import run
from tests.deployment.members.signed_rounds import put_statement, sign_rounds
from tests.rewards.books import KEY, ORIGIN

CLIENTS = ("north", "south")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, two recorded rounds over it, signed, with a key of each client and one of the aggregator."""
    folder = tmp_path_factory.mktemp("signed")
    model = consortia.base_model("llama")
    consortia.save_base(model, folder / "base")
    start = adapter_start(load_model(folder / "base"))
    recording = Recording(folder / "rounds", CLIENTS, start, adapter=ADAPTER)
    recording.run({"north": 3, "south": 1}, {"north": 1})
    keys = {client: SigningKey.generate(f"valley/{client}") for client in CLIENTS}
    recorded = sign_rounds(folder / "rounds", keys)
    for client, key in keys.items():
        key.save(folder / f"{client}.key")
        (folder / f"{client}.pub").write_text(key.public.encode())
    (folder / "sent").mkdir()
    for sent, update in sent_updates(recorded):
        if sent.client == "north":
            (folder / "sent" / f"{sent.round}.json").write_text(f"{update.statement}\n")
    KEY.save(folder / "aggregator.key")
    (folder / "aggregator.pub").write_text(KEY.public.encode())
    return folder


def importing(place: Path, rounds: Path, target: Path) -> list[str]:
    base = f"path:{place / 'base'}"
    return ["consortium", "import", "--rounds", str(rounds), "--base", base, "--out", str(target)]


@pytest.fixture(scope="module")
def bundle(place: Path) -> Path:
    """The bundle of the signed rounds."""
    target = place / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["protoken"])
        from deployment.cli import main  # noqa: PLC0415

        with pytest.raises(SystemExit) as ended:
            main([*importing(place, place / "rounds", target), "--key", str(place / "aggregator.key"), "--json"])
    assert not ended.value.code
    return target


def checking(place: Path, bundle: Path, *more: str) -> list[str]:
    own = ["--client", "north", "--own-key", str(place / "north.pub"), "--statements", str(place / "sent")]
    return ["member", "check", str(bundle), *own, *more]


def test_a_key_is_made_once(capsys, tmp_path):
    """Its public half is printed, its file is the owner's alone, and no second key goes over it."""
    code, out, _ = run(capsys, "member", "keygen", str(tmp_path / "new" / "key"), "--name", "valley/north")

    assert (0, "valley/north") == (code, VerifyKey.decode(out).name)
    assert 0o600 == (tmp_path / "new" / "key").stat().st_mode & 0o777
    code, _, err = run(capsys, "member", "keygen", str(tmp_path / "new" / "key"), "--name", "valley/north")
    assert (1, 1) == (code, len(err.splitlines()))
    assert SigningKey.load(tmp_path / "new" / "key").public.encode() == out.strip()


def test_an_update_is_signed_by_hand_and_taken_in(capsys, place, tmp_path):
    """What `member sign` writes is what `import` wants, byte for byte as a mod would have sent it."""
    rounds = tmp_path / "rounds"
    start = adapter_start(load_model(place / "base"))
    Recording(rounds, CLIENTS, start, adapter=ADAPTER).run({"north": 3})
    keys = {client: SigningKey.load(place / f"{client}.key") for client in CLIENTS}
    ((sent, _),) = sent_updates(sign_rounds(rounds, keys))
    put_statement(rounds, sent, None)
    refused = run(capsys, *importing(place, rounds, tmp_path / "bundle"))
    files = [str(rounds / "round-0001" / "update-north.safetensors"), "--before"]
    files += [str(rounds / "round-0000" / "global.safetensors"), "--key", str(place / "north.key")]
    about = ["--consortium", "valley", "--client", "north", "--round", "1", "--weight", "3"]
    signed = run(capsys, "member", "sign", *files, *about, "--out", str(tmp_path / "kept" / "1.json"))
    put_statement(rounds, sent, (tmp_path / "kept" / "1.json").read_text().strip())

    assert (1, True) == (refused[0], "client 'north': its update is not signed" in refused[2])
    assert not (tmp_path / "bundle" / "nothing").exists()
    assert (0, True) == (signed[0], sent.sha256 in signed[1])
    assert 0 == run(capsys, *importing(place, rounds, tmp_path / "bundle"))[0]


def test_the_statement_of_another_update_is_not_replaced(capsys, place, tmp_path):
    """Nobody else keeps what was sent: signed again it is the same file, and what differs needs a name of its own."""
    Recording(tmp_path / "rounds", CLIENTS, adapter_start(load_model(place / "base")), adapter=ADAPTER).run(
        {"north": 3}
    )
    files = [str(tmp_path / "rounds" / "round-0001" / "update-north.safetensors"), "--before"]
    files += [str(tmp_path / "rounds" / "round-0000" / "global.safetensors"), "--key", str(place / "north.key")]
    about = ["--consortium", "valley", "--client", "north", "--round", "1", "--out", str(tmp_path / "1.json")]
    codes = [run(capsys, "member", "sign", *files, *about, "--weight", weight) for weight in ("3", "3", "4")]

    assert [0, 0, 1] == [code for code, _, _ in codes]
    assert "1.json: is the statement of another update" in codes[2][2]
    assert '"weight":"3.0"' in (tmp_path / "1.json").read_text()


def test_the_weight_has_to_be_one(capsys, tmp_path):
    """Nothing is signed that no round would take."""
    about = ["--consortium", "valley", "--client", "north", "--round", "1", "--out", str(tmp_path / "1.json")]
    code, _, err = run(capsys, "member", "sign", "u", "--before", "g", "--key", "k", *about, "--weight", "-1")

    assert (2, True) == (code, "--weight" in err)


def test_the_bundle_shows_and_verifies_its_signatures(capsys, place, bundle):
    """`show` says which are there, `verify` whether they hold, receipts too under the aggregator's key."""
    shown = run(capsys, "consortium", "show", str(bundle))[1]
    code, out, _ = run(
        capsys, "consortium", "verify", str(bundle), "--public-key", str(place / "aggregator.pub"), "--json"
    )

    assert 3 == shown.count("signed, receipt")
    assert (0, True, []) == (code, json.loads(out)["ok"], [w for w in json.loads(out)["warnings"] if "sign" in w])


def test_a_bundle_whose_statement_was_changed_does_not_verify(capsys, bundle):
    """Whoever edits the manifest is named by round and client."""
    manifest = bundle / "consortium.json"
    before = manifest.read_text()
    manifest.write_text(before.replace('"declared": 3.0', '"declared": 30.0', 1))
    code, _, err = run(capsys, "consortium", "verify", str(bundle))
    manifest.write_text(before)

    assert code == 1
    assert "round 1: client 'north': statement: it was signed for weight" in err


def test_unsigned_rounds_are_a_warning(capsys, place, tmp_path):
    """Taken in by the flag, and told by `verify` ever after."""
    start = adapter_start(load_model(place / "base"))
    Recording(tmp_path / "rounds", CLIENTS, start, adapter=ADAPTER).run({"north": 3, "south": 1})
    command = importing(place, tmp_path / "rounds", tmp_path / "bundle")
    refused, taken = run(capsys, *command), run(capsys, *command, "--unsigned")
    code, out, _ = run(capsys, "consortium", "verify", str(tmp_path / "bundle"), "--json")

    assert (1, 0, 0) == (refused[0], taken[0], code)
    assert "--unsigned takes what nobody signed" in refused[2]
    assert {"client 'north' did not sign", "client 'south' did not sign"} <= {*json.loads(out)["warnings"]}


def test_a_member_finds_what_it_sent(capsys, place, bundle):
    """A row for each round, and in JSON the hash by which the ledger knows the bundle."""
    code, out, err = run(capsys, *checking(place, bundle))
    document = json.loads(run(capsys, *checking(place, bundle, "--json"))[1])

    assert (0, "", 2) == (code, err, out.count("credited"))
    assert [(1, "credited", 0.75), (2, "credited", 1.0)] == [
        (each["round"], each["standing"], each["weight"]) for each in document["updates"]
    ]
    assert document["ok"]


def test_a_folder_without_statements_is_no_good_news(capsys, place, bundle, tmp_path):
    """A wrong folder would be a green answer to a question that nobody asked."""
    (tmp_path / "empty").mkdir()
    code, out, err = run(capsys, *checking(place, bundle), "--statements", str(tmp_path / "empty"))

    assert (1, "") == (code, out)
    assert f"{tmp_path / 'empty'} holds no statement" in err


def test_nothing_compared_is_no_good_news(capsys, place, tmp_path):
    """Of a bundle that records no updates, where no statement is given either: it might have dropped them all."""
    model = consortia.base_model("llama")
    bundle = consortia.write_consortium(tmp_path / "plain", model, consortia.updates(model))
    client = open_bundle(bundle).manifest.clients[0].id
    asked = ["member", "check", str(bundle), "--client", client, "--own-key", str(place / "north.pub")]
    code, out, err = run(capsys, *asked)
    as_json = run(capsys, *asked, "--json")

    assert (1, "", 1, "") == (code, out, as_json[0], as_json[1])
    assert f"nothing could be compared: it records no update of '{client}', and no statement was given" in err


def test_a_dropped_update_ends_with_exit_code_1(capsys, place, tmp_path):
    """One line says which round, and why as far as the bundle says."""
    start = adapter_start(load_model(place / "base"))
    Recording(tmp_path / "rounds", CLIENTS, start, adapter=ADAPTER).run({"south": 1}, {"south": 1})
    sign_rounds(tmp_path / "rounds", {client: SigningKey.load(place / f"{client}.key") for client in CLIENTS})
    run(capsys, *importing(place, tmp_path / "rounds", tmp_path / "bundle"))
    code, _, err = run(capsys, *checking(place, tmp_path / "bundle"))

    assert (1, 1) == (code, len(err.splitlines()))
    assert "round 1: not credited: the bundle does not say why; round 2: not credited" in err


def test_an_update_file_of_another_hash_is_named(capsys, place, bundle):
    """The manifest alone would not show it."""
    file = bundle / "clients" / "north" / "update.safetensors"
    before = file.read_bytes()
    file.write_bytes(before + b" ")
    code, _, err = run(capsys, *checking(place, bundle))
    file.write_bytes(before)

    assert (1, True) == (code, f"{file}: has the hash" in err)


def test_the_books_prove_that_the_bundle_is_the_published_one(capsys, place, bundle, tmp_path):
    """From the operator's proof and the ledger's public key; another bundle is not the one that was published."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    manifest_sha256 = json.loads(run(capsys, *checking(place, bundle, "--json"))[1])["manifest_sha256"]
    for number, digest in ((2, manifest_sha256), (3, "f" * 64)):
        with closing(Ledger(url)) as ledger:
            with ledger.database.write() as connection:
                publish(
                    connection,
                    "valley",
                    bundle=str(bundle),
                    model_sha256=digest,
                    manifest_sha256=digest,
                    round_number=number,
                    actor="tester",
                )
            seal(ledger, KEY, ORIGIN)
    for name, more in (("two", ["--round", "2"]), ("last", [])):
        out = run(capsys, "ledger", "bundle-proof", "valley", "--ledger", url, *more)[1]
        (tmp_path / f"{name}.json").write_text(out)
    known = ["--public-key", str(place / "aggregator.pub")]
    code, out, _ = run(capsys, *checking(place, bundle, "--proof", str(tmp_path / "two.json"), *known))
    other = run(capsys, *checking(place, bundle, "--proof", str(tmp_path / "last.json"), *known))
    nobodys = run(capsys, *checking(place, bundle, "--proof", str(tmp_path / "two.json")))
    plain = run(capsys, "ledger", "check-proof", str(tmp_path / "two.json"), *known)

    assert (0, True) == (code, "as round 2: in the signed books" in out)
    assert (1, True) == (other[0], "proves that a bundle with the manifest" in other[2])
    assert (2, True) == (nobodys[0], "--public-key" in nobodys[2])
    assert (0, True) == (plain[0], manifest_sha256 in plain[1])
