"""Whatever a member or a stranger hands in is taken in and verifies, or is refused in one line; nothing else happens.

Each case begins with valid files and breaks some of them. `PROTOKEN_HOSTILE_CASES` says how many are tried.
"""

import json
import os
import pickle
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from attribution.base.references import load_model, weights_sha256
from attribution.bundle.bundle import open_bundle, verify_bundle
from attribution.bundle.manifest import read_manifest
from attribution.bundle.suspicions import suspicions
from attribution.errors import AttributionError, BundleError
from attribution.files.untrusted import file_sha256, read_json_object
from attribution.importers.checkpoints import import_checkpoints
from attribution.importers.client_folders import ClientFolder
from attribution.importers.peft_folders import import_folders
from attribution.importers.recorded_rounds import import_rounds
from deployment.members.bundle_front import read_front
from deployment.members.own_updates import own_updates
from deployment.members.recorded_signatures import receipts_for, require_signed
from deployment.members.signatures import signature_problems, unsigned_updates
from deployment.members.signed_updates import SentUpdate, check_statement, read_statement, sign_update
from rewards.errors import RewardsError
from tests.attribution import consortia
from tests.attribution.importers.recordings import ADAPTER, Recording, adapter_start
from tests.deployment.cli.test_commands import run
from tests.deployment.members.hostile_files import (
    MARK,
    Gadget,
    break_json,
    break_tensors,
    break_tree,
    is_large,
    seal_rounds,
    write_tensors,
)
from tests.deployment.members.signed_rounds import AGGREGATOR, KEYS, sign_rounds

CASES = int(os.environ.get("PROTOKEN_HOSTILE_CASES", "500"))
"""Cases of all kinds together; 10 000 are run once in a while."""
SIZES = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "head_dim": 4}
SECONDS = 5  # of the processor
DRAWN = st.randoms(use_true_random=False)
STATEMENT = SentUpdate("valley", 1, "north", "a" * 64, "b" * 64, 3.0)
_FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo")
_events: list[str] = []
sys.addaudithook(lambda event, _: _events.append(event) if event in _FORBIDDEN else None)


def cases(part: float) -> Callable[..., Callable[..., None]]:
    """That part of all cases: of few always the same ones, of many others each time."""
    return settings(max_examples=max(1, round(CASES * part)), derandomize=CASES <= 500)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and beside it in `valid` what a member may hand in of each kind."""
    place = tmp_path_factory.mktemp("hostile")
    consortia.save_base(consortia.base_model("llama", tied=False, **SIZES), place / "base")
    model, valid = load_model(place / "base"), place / "valid"
    start = adapter_start(model, rank=2)
    configuration = {**ADAPTER, "r": 2, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    recording = Recording(valid / "rounds", ("north", "south"), start, adapter=configuration)
    recording.run({"north": 3, "south": 1}, {"north": 1})
    sign_rounds(valid / "rounds")
    (valid / "adapter").mkdir()
    (valid / "adapter" / "adapter_config.json").write_text(json.dumps(configuration))
    shutil.copy(valid / "rounds/round-0001/update-north.safetensors", valid / "adapter/adapter_model.safetensors")
    trained = load_model(place / "base")
    for value in trained.parameters():
        value.add_(0.01)
    consortia.save_base(trained, valid / "checkpoint")
    _import_rounds(valid / "rounds", place, valid / "bundle")
    return place


def _import_rounds(folder: Path, place: Path, target: Path) -> None:
    def admit(recorded):
        require_signed(recorded, unsigned=False)
        return receipts_for(recorded, AGGREGATOR)

    import_rounds(folder, f"path:{place / 'base'}", target, lambda _: None, admit)


def _tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What lies below a folder, with kind, size and time of the last change."""
    paths = {str(path): path.lstat() for path in folder.rglob("*")}
    return {name: (stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in paths.items()}


class Case:
    """One attempt: a copy of something valid in a folder of its own, which is there for one `with`."""

    def __init__(self, place: Path, kind: str) -> None:
        self.root = place / "case"
        shutil.rmtree(self.root, ignore_errors=True)
        self.folder = Path(shutil.copytree(place / "valid" / kind, self.root / kind))
        self.secret = self.root / "secret.txt"
        self.secret.write_text("a secret")
        self.target = self.root / "out" / "bundle"
        self.target.parent.mkdir()

    def files(self, ending: str) -> list[Path]:
        """Plain files of the copy whose names end so."""
        return sorted(path for path in self.folder.rglob(f"*{ending}") if path.is_file() and not path.is_symlink())

    def break_something(self, draw: Random) -> None:
        """Break one to three things of the copy."""
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            ending = draw.choice([".json", ".json", ".safetensors", ".safetensors", ""])
            if not (files := self.files(ending)):
                continue
            path = draw.choice(files)
            try:
                if ending == ".json":
                    break_json(path, draw)
                elif ending:
                    break_tensors(path, draw)
                else:
                    break_tree(path, self.secret, draw)
            except (
                ValueError,
                TypeError,
                AttributeError,
                IndexError,
                KeyError,
                RecursionError,
            ):  # is broken beyond breaking
                break_tree(path, self.secret, draw)

    @contextmanager
    def attempt(self, *, raises: bool = False) -> Iterator[None]:
        """Whatever is done within: one of our own errors at most, in one line, and nothing beside.

        With `raises` the error goes on after it was looked at.
        """
        before, began, _events[:] = _tree(self.root), time.process_time(), []
        try:
            yield
        except (AttributionError, RewardsError) as error:
            self._require_one_line(str(error))
            assert not list(self.target.parent.iterdir()), "what was refused left something behind"
            if raises:
                raise
        after = {name: seen for name, seen in _tree(self.root).items() if not name.startswith(f"{self.target.parent}")}
        taken = time.process_time() - began
        assert after == {name: seen for name, seen in before.items() if not name.startswith(f"{self.target.parent}")}
        assert [] == _events
        assert MARK not in os.environ
        assert taken < SECONDS, f"took {taken:.1f} s of the processor"

    def _require_one_line(self, said: str) -> None:
        assert said.isprintable() or said.splitlines() == [said], said
        assert len(said) < 2500, f"{len(said)} letters: {said[:300]}"
        of_text = ("it is", "it was", "the document", "the bundle", "signature", "statement", "signing_key", "weight")
        names = (str(self.folder), "client", "new bundle", "base model", "path:", "parameter", *of_text)
        assert any(name in said for name in names), said


def _require_verified(target: Path) -> None:
    assert () == verify_bundle(open_bundle(target)).problems


@cases(0.34)
@given(draw=DRAWN)
def test_an_adapter(place, draw):
    """A PEFT folder: configuration and factors."""
    case = Case(place, "adapter")
    case.break_something(draw)
    honest = ClientFolder("honest", place / "valid" / "adapter")
    with case.attempt():
        clients = [ClientFolder("north", case.folder, 2.0), honest]
        import_folders("valley", f"path:{place / 'base'}", clients, case.target, lambda _: None)
        _require_verified(case.target)


@cases(0.1)
@given(draw=DRAWN)
def test_a_checkpoint(place, draw):
    """A whole model with its configuration and tokenizer."""
    case = Case(place, "checkpoint")
    case.break_something(draw)
    with case.attempt():
        clients = [ClientFolder("north", case.folder)]
        import_checkpoints("valley", f"path:{place / 'base'}", clients, case.target, lambda _: None)
        _require_verified(case.target)


@cases(0.26)
@given(draw=DRAWN)
def test_recorded_rounds(place, draw):
    """A folder of rounds; half of them with hashes of what is there, so that what is behind is reached."""
    case = Case(place, "rounds")
    case.break_something(draw)
    if draw.randrange(4):
        seal_rounds(case.folder)
    with case.attempt():
        admit = {} if draw.randrange(2) else {"admit": _signed_only}
        import_rounds(case.folder, f"path:{place / 'base'}", case.target, lambda _: None, **admit)
        _require_verified(case.target)


def _signed_only(recorded):
    require_signed(recorded, unsigned=True)
    return receipts_for(recorded, AGGREGATOR)


@cases(0.1)
@given(draw=DRAWN)
def test_a_statement(place, draw):
    """What a member signed, or says that it did."""
    case = Case(place, "adapter")
    path = case.folder / "statement.json"
    path.write_text(sign_update(STATEMENT, KEYS["north"]))
    break_json(path, draw)
    with case.attempt():
        text = path.read_text(errors="replace")
        read_statement(text, KEYS["north"].public)
    with case.attempt():
        check_statement(text, STATEMENT, KEYS["north"].public)


@cases(0.2)
@given(draw=DRAWN)
def test_a_bundle(place, draw):
    """A manifest with what it names, half of them with hashes of what is there; problems are a line each, too."""
    case = Case(place, "bundle")
    manifest = case.folder / "consortium.json"
    if draw.randrange(2):
        break_json(manifest, draw)
    else:
        case.break_something(draw)
    if is_large(case.folder):  # what is hashed takes as long as it is large: of a bundle that is its reader's own disk
        return
    if draw.randrange(2):
        _seal_bundle(case.folder)
    with case.attempt():
        front = read_front(case.folder).manifest
        own_updates(front, "north", KEYS["north"].public, {})
    with case.attempt():
        bundle = open_bundle(case.folder)
        said = [*verify_bundle(bundle).problems, *suspicions(bundle), *unsigned_updates(bundle.manifest)]
        for each in (*said, *signature_problems(bundle.manifest, [AGGREGATOR.public])):
            assert each.splitlines() == [each] and len(each) < 2500


def _seal_bundle(folder: Path) -> None:
    try:
        document = read_json_object(folder / "consortium.json", BundleError)
        document["global"]["sha256"] = weights_sha256(folder / "global")
        for client in document["clients"]:
            client["sha256"] = file_sha256(folder / client["path"], BundleError)
            if client.get("last_round_path") is not None:
                client["last_round_sha256"] = file_sha256(folder / client["last_round_path"], BundleError)
        (folder / "consortium.json").write_text(json.dumps(document))
    except (OSError, ValueError, AttributionError, TypeError, KeyError, AttributeError):
        return


def test_what_is_valid_is_taken_in(place):
    """Unbroken, all of it is taken in and verifies: else the cases would prove little."""
    for kind, take in (("adapter", import_folders), ("checkpoint", import_checkpoints)):
        case = Case(place, kind)
        take("valley", f"path:{place / 'base'}", [ClientFolder("north", case.folder)], case.target)
        _require_verified(case.target)
    case = Case(place, "rounds")
    _import_rounds(case.folder, place, case.target)
    _require_verified(case.target)


def _claim(path: Path, size: int) -> None:
    """Let a file of safetensors say that all of it is one tensor of bytes, and be as large as that."""
    write_tensors(path, {"model.norm.weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}, b"")
    os.truncate(path, path.stat().st_size + size)


@pytest.mark.parametrize("name", ["round-0000/global", "round-0001/update-north", "round-0002/global"])
def test_a_file_with_holes_is_not_hashed(place, name):
    """A terabyte that takes no space is refused by what its head says, and nobody waits for its hash."""
    case = Case(place, "rounds")
    _claim(case.folder / f"{name}.safetensors", 1 << 40)
    with pytest.raises(AttributionError, match=f"{name}.safetensors: "), case.attempt(raises=True):
        import_rounds(case.folder, f"path:{place / 'base'}", case.target)


@pytest.mark.parametrize("value", [3e38, 1e300])
def test_numbers_that_overflow_are_refused(place, value):
    """Factors that are finite, but not as 32 bits or not once they are multiplied, are refused by the file."""
    case = Case(place, "rounds")
    path = case.folder / "round-0001" / "update-north.safetensors"
    save_file({name: torch.full_like(tensor.double(), value) for name, tensor in load_file(path).items()}, path)
    seal_rounds(case.folder)
    with pytest.raises(AttributionError, match=r"update-north\.safetensors: "), case.attempt(raises=True):
        import_rounds(case.folder, f"path:{place / 'base'}", case.target)


@pytest.mark.parametrize("weights", [(1e308, 1e308), (1e300, 1e-300)])
def test_weights_that_are_no_part_of_their_sum_are_refused(place, weights):
    """Two declared weights whose sum is infinite, or beside which one is nothing, are refused by file and client."""
    case = Case(place, "rounds")
    path = case.folder / "round-0001" / "round.json"
    document = json.loads(path.read_text())
    for update, weight in zip(document["updates"], weights, strict=True):
        update["weight"] = weight
    path.write_text(json.dumps(document))
    with pytest.raises(AttributionError, match=r"round\.json: .*client '.*': weight .* is no part of"):
        import_rounds(case.folder, f"path:{place / 'base'}", case.target)


def test_a_long_list_with_one_name_twice_takes_no_longer_than_reading_it():
    """A hundred thousand names of one object, of which the last comes again, are looked at once each."""
    names = [f'"n{number}": 0' for number in range(100_000)]
    began = time.process_time()
    with pytest.raises(ValueError, match="'n99999' is given twice"):
        read_manifest(f"{{{', '.join([*names, names[-1]])}}}")

    assert time.process_time() - began < SECONDS


def test_what_strangers_call_things_keeps_to_its_line(place):
    """Names of files, keys and tensors that hold a line break, or a hundred thousand letters, are told in short."""
    case, said = Case(place, "adapter"), []
    configuration = case.folder / "adapter_config.json"
    valid = json.loads(configuration.read_text())
    for keys in ({"line\nbreak": 1}, {"k" * 100_000: 1}, {"init_lora_weights": "x" * 100_000}):
        configuration.write_text(json.dumps({**valid, **keys}))
        said.append(_refusal(lambda: _import_adapter(case, place)))
    configuration.write_text(json.dumps(valid))
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    write_tensors(case.folder / "adapter_model.safetensors", {"x" * 5000: entry}, b"")
    said.append(_refusal(lambda: _import_adapter(case, place)))
    rounds = Case(place, "rounds")
    (rounds.folder / "round-0001" / "a\nb").write_text("")
    said.append(_refusal(lambda: _import_rounds(rounds.folder, place, rounds.target)))

    assert [1] * 5 == [len(each.splitlines()) for each in said]
    assert max(map(len, said)) < 700


def test_a_bundle_of_a_billion_blocks_is_refused(place):
    """Its configuration is held against its weights before a model is made of it."""
    case = Case(place, "bundle")
    path = case.folder / "global" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 10**9}))
    _seal_bundle(case.folder)

    assert "num_hidden_layers is 1000000000, but there are" in _refusal(lambda: verify_bundle(open_bundle(case.folder)))


def _import_adapter(case: Case, place: Path) -> None:
    import_folders("valley", f"path:{place / 'base'}", [ClientFolder("north", case.folder)], case.target)


def _refusal(take: Callable[[], object]) -> str:
    with pytest.raises(AttributionError) as refused:
        take()
    return str(refused.value)


@pytest.mark.parametrize("kind", ["adapter", "rounds"])
def test_the_command_line_says_it_in_one_line(place, capsys, kind):
    """`protoken consortium import` of a pickle in the place of tensors: one line, exit code 1, no bundle."""
    case = Case(place, kind)
    path = case.files("update-north.safetensors" if kind == "rounds" else ".safetensors")[0]
    path.write_bytes(pickle.dumps(Gadget()))
    named = ["--rounds", str(case.folder)] if kind == "rounds" else ["--client", f"north={case.folder}"]
    code, out, err = run(
        capsys, "consortium", "import", *named, "--base", f"path:{place / 'base'}", "--out", str(case.target)
    )

    assert (1, "") == (code, out)
    assert [f"protoken: {path}: is a pickle, which is never opened: save it with safetensors"] == err.splitlines()
    assert MARK not in os.environ
    assert not case.target.exists()


@pytest.mark.parametrize("kind", ["adapter", "checkpoint"])
def test_defences_at_import_cut_what_a_cheat_hands_in(place, capsys, kind):
    """A copy under another name is left out, and a weight beyond the median is cut: told, and in the manifest."""
    case = Case(place, kind)
    clients = [f"--client={name}={case.folder}:{weight}" for name, weight in (("north", 90), ("copy", 10))]
    if kind == "adapter":  # an honest one between them, of another size
        other = shutil.copytree(case.folder, case.root / "other")
        path = other / "adapter_model.safetensors"
        torch.manual_seed(0)
        save_file({name: torch.randn_like(tensor) for name, tensor in load_file(path).items()}, path)
        clients.append(f"--client=other={other}:10")
    chosen = ["--clip-to-median", "--cap-counts", "1", "--drop-duplicates", "0.95", *(["--full"] * (kind != "adapter"))]
    place_of = ["--base", f"path:{place / 'base'}", "--out", str(case.target)]
    code, _, err = run(capsys, "consortium", "import", *clients, *chosen, *place_of)
    bundle = open_bundle(case.target)

    assert code == 0
    assert "client 'copy' was left out: cosine 1.000 to the update of 'north'" in err
    assert ("declared 90 examples, which were cut to 50" in err) == (kind == "adapter")
    assert ("was clipped from norm" in err) == (kind == "adapter")
    assert {"clip_to_median": True, "cap_counts": 1, "drop_duplicates": 0.95} == bundle.manifest.defences
    assert [0.0] == [client.weight for client in bundle.manifest.clients if client.id == "copy"]
    _require_verified(case.target)


@pytest.mark.parametrize(
    ("place_in", "value", "words"),
    [
        (("clients", 0, "path"), "(" * 5000, "clients.0.path: .* 5000 letters"),
        (("round",), 10**19, "must be those from"),
    ],
    ids=["path", "rounds"],
)
def test_a_manifest_that_claims_too_much_is_refused(place, place_in, value, words):
    """A path longer than a file's may be, and more rounds than a list could hold, are refused by the field."""
    case = Case(place, "bundle")
    document = json.loads((case.folder / "consortium.json").read_text())
    *parents, last = place_in
    parent = document
    for name in parents:
        parent = parent[name]
    parent[last] = value
    (case.folder / "consortium.json").write_text(json.dumps(document))

    assert re.search(words, _refusal(lambda: open_bundle(case.folder)))
