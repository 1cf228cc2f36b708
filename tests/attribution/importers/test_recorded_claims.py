"""What a bundle of recorded rounds claims is held against what is in it; what was sent again is told of."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from attribution.base.references import load_model
from attribution.bundle.bundle import measure_bundle, open_bundle, verify_bundle
from attribution.bundle.suspicions import suspicions
from attribution.errors import BundleError
from attribution.files.untrusted import file_sha256
from attribution.importers.recorded_rounds import import_rounds
from tests.attribution import consortia
from tests.attribution.importers.recordings import ADAPTER, Recording, adapter_start, idle

ROUNDS = ({"north": 40, "south": 20}, {"north": 10, "east": 30, "south": 1})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model on disk."""
    folder = tmp_path_factory.mktemp("base")
    consortia.save_base(consortia.base_model("llama"), folder)
    return folder


@pytest.fixture(scope="module")
def good(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two recorded rounds, which nobody touches."""
    folder = tmp_path_factory.mktemp("good")
    start = adapter_start(load_model(base))
    recording = Recording(folder / "rounds", ("north", "south", "east", "never"), start, adapter=ADAPTER)
    recording.run(*ROUNDS)
    return import_rounds(recording.folder, f"path:{base}", folder / "bundle").path


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    """Alter the manifest, whose hashes then agree with the files."""
    document = json.loads((bundle / "consortium.json").read_text())
    change(document)
    for client in document["clients"]:
        client["sha256"] = file_sha256(bundle / client["path"], BundleError)
        if client["last_round_path"] is not None:
            client["last_round_sha256"] = file_sha256(bundle / client["last_round_path"], BundleError)
    (bundle / "consortium.json").write_text(json.dumps(document))


def drop(bundle: Path) -> None:
    """A client's update is struck from a round."""
    edit(bundle, lambda document: document["rounds"][0]["updates"].pop(1))


def drop_and_declare(bundle: Path) -> None:
    """The same, and the other's weight is made the whole: what it sent cannot make its part any more."""

    def change(document: dict) -> None:
        updates = document["rounds"][0]["updates"]
        updates.pop(1)
        updates[0]["weight"] = 1.0

    edit(bundle, change)


def weigh(bundle: Path) -> None:
    """A client declared another number than it counts for."""
    edit(bundle, lambda document: document["rounds"][0]["updates"][0].update(declared=4000))


def boast(bundle: Path) -> None:
    """A client's part of the sum is ten times what it sent."""
    path = bundle / "clients" / "south" / "update.safetensors"
    tensors = load_file(path)
    save_file({name: 10 * value if "lora_B" in name else value for name, value in tensors.items()}, path)
    edit(bundle, lambda _: None)


def belittle(bundle: Path) -> None:
    """A client's part of the sum is a tenth of what it sent, and the rest is said to be what training began with."""
    path = bundle / "clients" / "east" / "update.safetensors"
    tensors = load_file(path)
    save_file({name: value / 10 if "lora_B" in name else value for name, value in tensors.items()}, path)

    def change(document: dict) -> None:
        document["start_norm"] += 100

    edit(bundle, change)
    left = measure_bundle(open_bundle(bundle)).residual_norm
    edit(bundle, lambda document: document["global"].update(residual_norm=left))


def forge_part(bundle: Path) -> None:
    """A client that never came has the part of another."""
    for client, other in (("never", "east"),):
        shutil.copy(bundle / "clients" / other / "update.safetensors", bundle / "clients" / client)
    edit(bundle, lambda _: None)


def swap_last(bundle: Path) -> None:
    """Two updates of the last round change places."""
    one, other = (bundle / "clients" / name / "last_round.safetensors" for name in ("north", "east"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    edit(bundle, lambda _: None)


def lose_last(bundle: Path) -> None:
    """An update of the last round is gone."""
    edit(bundle, lambda document: document["clients"][0].update(last_round_path=None, last_round_sha256=None))


def add_last(bundle: Path) -> None:
    """An update of the last round of who was not in it."""
    path = "clients/never/last_round.safetensors"
    shutil.copy(bundle / "clients" / "east" / "last_round.safetensors", bundle / path)
    edit(bundle, lambda document: document["clients"][3].update(last_round_path=path, last_round_sha256="0" * 64))


def raise_weight(bundle: Path) -> None:
    """Another weight in front than in the last round."""
    edit(bundle, lambda document: document["clients"][0].update(weight=0.9))


def hide_residual(bundle: Path) -> None:
    """The server claims that it did nothing besides averaging."""
    edit(bundle, lambda document: document["global"].update(residual_norm=0.0))


def hide_residual_of_rounds(bundle: Path) -> None:
    """It claims so of each round, while the whole says otherwise."""
    edit(bundle, lambda document: [each.update(residual_norm=0.0) for each in document["rounds"]])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop, "round 1: the clients' weights sum to 0.666667, not to 1; was a client dropped?"),
        (drop_and_declare, "client 'south': its update has norm"),
        (weigh, "round 1: client 'north' has weight 0.666667, but declared 4000 of 4020"),
        (boast, "do not add up to the global model"),
        (boast, "client 'south': its update has norm"),
        (belittle, "at least; client 'east': its update has norm"),
        (forge_part, "client 'never': its update has norm"),
        (swap_last, "client 'north': its update of round 2 has norm"),
        (lose_last, "client 'north' took part in round 2, but its update of that is not here"),
        (add_last, "client 'never' took no part in round 2, but an update of that is here"),
        (raise_weight, "client 'north' has weight 0.9, but in round 2 0.243902"),
        (hide_residual, "but the manifest says 0"),
        (hide_residual_of_rounds, "but what the server did in all rounds has 0 at most"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_claims_that_the_bundle_does_not_bear_out_are_named(bundle, spoil, reason):
    """Although every hash agrees: dropped, scaled, swapped and invented updates, weights and residuals."""
    assert () == verify_bundle(open_bundle(bundle)).problems
    spoil(bundle)

    assert reason in "; ".join(verify_bundle(open_bundle(bundle)).problems)


def test_rounds_that_do_not_follow_are_refused_when_the_bundle_is_opened(bundle):
    """Before anything is computed, with the file that says so."""
    edit(bundle, lambda document: document["rounds"][1].update(before_sha256="0" * 64))
    with pytest.raises(BundleError, match=r"consortium\.json: .*round 2: wrong base"):
        open_bundle(bundle)


def test_what_was_sent_before_is_told_of(base, tmp_path):
    """A member that sends its update of an earlier round again, or that of another one, is named; a rider is not."""

    class Lazy(Recording):
        def _train(self, before, client):
            if client == "south" and len(self.states) == 2:
                return self.sent[0]["south"][1]
            if client == "east":
                return self.sent[0]["north"][1]
            return super()._train(before, client)

    start = adapter_start(load_model(base))
    recording = Lazy(tmp_path / "rounds", ("north", "south", "east", "rider"), start, server=idle, adapter=ADAPTER)
    recording.run({"north": 1, "south": 1, "rider": 1}, {"south": 1, "east": 1, "rider": 1})
    bundle = open_bundle(import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle").path)

    assert [
        "client 'south' sent in round 2 what 'south' sent in round 1; replayed?",
        "client 'east' sent in round 2 what 'north' sent in round 1; copied?",
    ] == [each for each in suspicions(bundle) if " sent in " in each]


def test_outsized_updates_and_weights_are_told_of_at_import(base, tmp_path):
    """A member that scales what it sends, or declares far more than the others, is named as its round is imported."""

    class Loud(Recording):
        def _train(self, before, client):
            sent = super()._train(before, client)
            if client != "south":
                return sent
            return {name: before[name] + 20 * (value - before[name]) for name, value in sent.items()}

    start, remarks = adapter_start(load_model(base)), []
    recording = Loud(tmp_path / "rounds", ("north", "south", "east"), start, server=idle, adapter=ADAPTER)
    recording.run({"north": 1, "south": 1, "east": 7}, {"north": 1, "east": 2})
    bundle = import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle", remarks.append)

    assert ["round 1: client 'south': its update is", "round 1: client 'east': it declares"] == [
        said.rsplit(" ", 7)[0] for said in remarks
    ]
    assert remarks[1].endswith(" declares 7.0 times the median of the others")
    assert remarks == [each for each in suspicions(open_bundle(bundle.path)) if each.startswith("round ")]
