"""`protoken evaluate --bundle`: what a bundle pays held against Shapley values, booked where asked; what is refused."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from attribution.bundle.bundle import manifest_sha256, open_bundle
from attribution.evaluation.calibration_report import CalibrationReport
from deployment.replica.bundles.publish import publish_setting
from rewards.credit import canonical_bytes
from rewards.ledger.ledger import Ledger
from rewards.log import leaves, proofs
from rewards.log.sealer import seal
from rewards.store import events
from tests.attribution import consortia
from tests.deployment.cli.test_commands import run
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.receipts import MEMBERS, make_receipt


def _bundle(folder: Path, clients: str = "abc", *, size: float = 0.06, name: str = "test") -> Path:
    base = consortia.base_model("llama")
    updates = {
        client: consortia.lora_update(base, seed, first_block=2, size=size) for seed, client in enumerate(clients)
    }
    return consortia.write_consortium(folder, base, updates, dict.fromkeys(clients, 1.0), name=name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A random consortium of three, whose answers gain some nats."""
    return _bundle(tmp_path_factory.mktemp("calibrated"))


@pytest.fixture
def prompts(tmp_path) -> Path:
    """Three prompts, of which one is asked of the model, and one has a response that gains 10 nats by the bundle.

    What a random model answers differs with the processor: the last digit of a logit chooses a token, and that all that
    follow. What a given response gains does not.
    """
    answered = {"prompt": "who owns this?", "response": "gone to by the"}
    return _prompts(tmp_path, answered, {"prompt": "where is it?"}, {"prompt": "a", "response": "b"})


@pytest.fixture
def ledger(tmp_path, bundle) -> str:
    """A ledger of a service that is set to serve the bundle."""
    url = _ledger(tmp_path)
    with closing(Ledger(url)) as book:
        publish_setting(book, open_bundle(bundle))
    return url


def _ledger(folder: Path) -> str:
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.prepare(url)
    return url


def _prompts(folder: Path, *lines: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def _evaluate(capsys, bundle: Path, prompts: Path, *more: str) -> tuple[int, str, str]:
    out = str(prompts.parent / "out")
    capsys.readouterr()  # what was said while a bundle was made
    words = ("--bundle", str(bundle), "--prompts", str(prompts), "--out", out, "--max-new-tokens", "10", *more)
    return run(capsys, "evaluate", *words)


def _booked(url: str) -> list[events.Event]:
    with closing(Ledger(url)) as book, book.database.read() as connection:
        return events.find(connection, kinds=["calibration"])


def test_json_is_the_report(capsys, bundle, prompts, tmp_path):
    """`--json` prints what the file in --out holds, of which nothing was booked; no prompt and no client is named."""
    code, out, _ = _evaluate(capsys, bundle, prompts, "--json")
    document = json.loads(out)
    (file,) = (tmp_path / "out").iterdir()
    sha = open_bundle(bundle).manifest.global_.sha256

    assert 0 == code
    assert document.pop("sequence") is None
    assert (
        json.loads(file.read_text()) == document == CalibrationReport.model_validate(document).model_dump(mode="json")
    )
    assert f"calibration-{sha[:12]}.json" == file.name
    assert (sha, manifest_sha256(bundle)) == (document["model_sha256"], document["manifest_sha256"])
    assert sha256(prompts.read_bytes()).hexdigest() == document["prompts_sha256"]
    assert (3, 10, "exact") == (document["responses"], document["max_new_tokens"], document["truth"])
    assert document["figures"]["distance"]["n"] > 0
    assert [] == [word for word in ("who owns", "where is", '"a"') if word in out]


def test_a_table_and_a_sentence_are_shown(capsys, bundle, prompts):
    """How many passes it will take is said before, then the figures, and in words what they come to."""
    code, out, _ = _evaluate(capsys, bundle, prompts)

    assert 0 == code
    assert out.startswith(f"3 clients and 3 responses: about {3 * (8 + 10)} passes of the model, for 8 coalitions")
    for words in ("goes to others, all responses together", "Pearson's r", "of 3 responses were compared", "report: "):
        assert words in out
    assert "of a response's credit to clients would go to others by exact Shapley values" in out


def test_a_booked_report_is_in_the_signed_log(capsys, bundle, prompts, ledger):
    """It is an event whose document is the report; once sealed it is proved by the checkpoint, and the audit agrees."""
    code, out, _ = _evaluate(capsys, bundle, prompts, "--ledger", ledger, "--json")
    document = json.loads(out)
    sequence = document.pop("sequence")
    (event,) = _booked(ledger)
    with closing(Ledger(ledger)) as book:
        seal(book, KEY, ORIGIN)
        with book.database.read() as connection:
            proof = proofs.inclusion(connection, "event", sequence)
    verified = run(capsys, "ledger", "verify", "--ledger", ledger)
    row = {**vars(event), "document": canonical_bytes(document).decode()}
    inclusion = {name: proof[name] for name in ("leaf_index", "size", "hashes")}
    checked = {"inclusion": inclusion, "checkpoint": proof["checkpoint"]}

    assert 0 == code
    assert (sequence, "calibration", "test", "command line") == (event.sequence, event.kind, event.subject, event.actor)
    assert event.document == document
    proofs.require_included(leaves.event_leaf(row), checked, [KEY.public], ORIGIN)
    assert 0 == verified[0], verified[1:]


def test_the_same_found_again_is_one_event(capsys, bundle, prompts, ledger):
    """Repeated, it adds nothing and says so; by other prompts it is another calibration."""
    first = _evaluate(capsys, bundle, prompts, "--ledger", ledger)
    again = _evaluate(capsys, bundle, prompts, "--ledger", ledger)
    (event,) = _booked(ledger)
    prompts = _prompts(prompts.parent, {"prompt": "a", "response": "and gone first the"})  # 12 nats
    other = _evaluate(capsys, bundle, prompts, "--ledger", ledger)

    assert [0, 0, 0] == [each[0] for each in (first, again, other)]
    assert f"booked as event {event.sequence}; the next checkpoint" in first[1]
    assert f"the same was found before, and stands in the ledger as event {event.sequence}" in again[1]
    assert 2 == len(_booked(ledger))


def test_a_model_that_was_credited_is_known_too(capsys, bundle, prompts, tmp_path):
    """As in books from before there were publications: its receipts name it."""
    url = _ledger(tmp_path)
    with closing(Ledger(url)) as book:
        book.register("test", MEMBERS)
        sha = open_bundle(bundle).manifest.global_.sha256
        book.append(replace(make_receipt("r1"), consortium="test", model_sha256=sha))

    assert 0 == _evaluate(capsys, bundle, prompts, "--ledger", url)[0]


class TestUnknownBundles:
    """What the ledger does not know is refused before anything is asked, and leaves no event."""

    def _refused(self, capsys, bundle, prompts, url) -> str:
        code, out, err = _evaluate(capsys, bundle, prompts, "--ledger", url)
        assert (1, "", 1) == (code, out, len(err.splitlines()))
        assert [] == _booked(url)
        return err

    def test_of_no_consortium(self, capsys, bundle, prompts, tmp_path):
        """The message names the ones that there are."""
        url = _ledger(tmp_path)
        assert "the ledger knows no consortium 'test', only none" in self._refused(capsys, bundle, prompts, url)

    def test_neither_published_nor_credited(self, capsys, prompts, ledger, tmp_path):
        """A round of the same consortium that this ledger never saw."""
        other = _bundle(tmp_path / "other", size=0.05)
        assert "was neither published for consortium 'test' nor credited" in self._refused(
            capsys, other, prompts, ledger
        )

    def test_of_the_same_model_and_another_manifest(self, capsys, bundle, prompts, ledger, tmp_path):
        """A bundle with another manifest is another one, although it serves the same model."""
        other = tmp_path / "other"
        shutil.copytree(bundle, other)
        manifest = json.loads((other / "consortium.json").read_text())
        manifest["clients"][0]["weight"] = 0.5
        (other / "consortium.json").write_text(json.dumps(manifest))
        assert "was published, and not its manifest" in self._refused(capsys, other, prompts, ledger)

    def test_a_ledger_that_is_not_there(self, capsys, bundle, prompts, tmp_path):
        """As for every command."""
        code, _, err = _evaluate(capsys, bundle, prompts, "--ledger", f"sqlite:///{tmp_path}/none.db")
        assert (1, 1) == (code, len(err.splitlines()))
        assert "no ledger at" in err


def test_what_could_not_be_compared_is_not_booked(capsys, prompts, tmp_path):
    """Free riders alone: the report says so, and the ledger is told nothing."""
    idle = _bundle(tmp_path / "idle", "ab", size=0.0)
    url = _ledger(tmp_path)
    with closing(Ledger(url)) as book:
        publish_setting(book, open_bundle(idle))
    code, out, err = _evaluate(capsys, idle, prompts, "--ledger", url)

    assert 1 == code
    assert "No response could be compared" in out
    assert "Nothing was booked; give prompts" in err
    assert [] == _booked(url)


def test_eleven_clients_are_sampled(capsys, tmp_path):
    """Told before, with how many coalitions that asks at most, and in the report."""
    many = _bundle(tmp_path / "many", "abcdefghijk", size=0.03)
    gaining = (("where is it?", "of first and line"), ("who owns this?", "is all day place"), ("a", "b"))  # 7, 6 nats
    prompts = _prompts(tmp_path, *({"prompt": prompt, "response": response} for prompt, response in gaining))
    _, out, _ = _evaluate(capsys, many, prompts, "--permutations", "2")

    assert out.startswith(f"11 clients and 3 responses: about {3 * (42 + 10)} passes of the model, for 42 coalitions")
    assert "Shapley values sampled from 4 orders in which 11 clients may join" in out
    assert "by sampling the truth alone" in out


class TestRefusals:
    """What cannot be calibrated is said in one line, before anything is asked of the model."""

    @pytest.mark.parametrize(
        ("line", "named"),
        [
            ("{", "prompts.jsonl:2: not JSON"),
            ({"prompt": ""}, 'prompts.jsonl:2: needs "prompt"'),
            ({"prompt": "x", "response": ""}, "neither empty"),
            ({"prompt": "x" * 125}, "prompts.jsonl:2: prompt: "),
            ({"prompt": "x", "response": "y" * 130}, "prompts.jsonl:2: prompt and response: "),
            ({"prompt": "x" * 5000}, "prompts.jsonl:2: prompt: "),
        ],
    )
    def test_a_line_is_named(self, capsys, bundle, tmp_path, line, named):
        """With its file, its number and the field."""
        code, out, err = _evaluate(capsys, bundle, _prompts(tmp_path, {"prompt": "fine"}, line))

        assert (1, "", 1) == (code, out, len(err.splitlines()))
        assert named in err

    def test_a_file_without_prompts_is_named(self, capsys, bundle, tmp_path):
        """One that is empty, and one that is not there."""
        for path, named in ((_prompts(tmp_path, ""), "holds no prompt"), (tmp_path / "none.jsonl", "cannot be read")):
            code, _, err = _evaluate(capsys, bundle, path)
            assert 1 == code
            assert named in err and path.name in err

    def test_a_bundle_that_is_missing_or_altered_is_named(self, capsys, prompts, tmp_path):
        """The folder, or the file in it."""
        altered = _bundle(tmp_path / "altered")
        file = altered / json.loads((altered / "consortium.json").read_text())["clients"][0]["path"]
        save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)

        for folder, named in ((tmp_path / "none", "none"), (altered, "differs from the manifest's hash")):
            code, _, err = _evaluate(capsys, folder, prompts)
            assert (1, 1) == (code, len(err.splitlines()))
            assert named in err

    def test_somebody_else_s_file_stays(self, capsys, bundle, prompts, tmp_path):
        """Where the report would go there is one that is none: nothing is asked, and it stays as it is."""
        (tmp_path / "out").mkdir()
        file = tmp_path / "out" / f"calibration-{open_bundle(bundle).manifest.global_.sha256[:12]}.json"
        file.write_text("mine")
        code, _, err = _evaluate(capsys, bundle, prompts)

        assert (1, "mine") == (code, file.read_text())
        assert "is not a calibration's report" in err

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["E9", "--bundle", "b", "--prompts", "p"], "E9: experiments train consortia of their own"),
            (["E9", "--prompts", "p"], "experiments train consortia of their own"),
            (["--bundle", "b"], "is calibrated by prompts: give both"),
            (["--prompts", "p"], "is calibrated by prompts: give both"),
            (["--bundle", "b", "--prompts", "p", "--quick"], "--quick: it is of experiments"),
            (["E9", "--ledger", "sqlite:///x.db"], "--ledger: it is of --bundle"),
            (["--permutations", "1", "--bundle", "b", "--prompts", "p"], "--permutations"),
        ],
    )
    def test_wrong_usage(self, capsys, monkeypatch, arguments, named):
        """A bundle together with experiments, without prompts, or an option of the other of the two."""
        monkeypatch.delenv("PROTOKEN_BUNDLE", raising=False)
        code, _, err = run(capsys, "evaluate", *arguments)

        assert 2 == code
        assert named in " ".join(err.replace("│", " ").split())

    def test_a_bundle_that_is_set_leaves_experiments_alone(self, capsys, monkeypatch, tmp_path):
        """PROTOKEN_BUNDLE is the service's: without prompts nobody asked to calibrate it; with them it is meant."""
        monkeypatch.setenv("PROTOKEN_BUNDLE", str(tmp_path / "set"))
        experiments = run(capsys, "evaluate", "E99")
        calibrated = run(capsys, "evaluate", "--prompts", str(_prompts(tmp_path, {"prompt": "who?"})))

        assert "no experiment 'E99'" in experiments[2]
        assert f"{tmp_path}/set" in calibrated[2]
