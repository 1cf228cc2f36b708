"""Recorded rounds become a bundle: each client's part of all rounds, and what the server did is nobody's."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from attribution.base.references import load_model
from attribution.bundle.bundle import Bundle, open_bundle, verify_bundle
from attribution.bundle.bundle_diff import client_changes
from attribution.errors import AttributionError, BundleError, DestinationError, RoundsError
from attribution.importers.recorded_rounds import import_rounds
from attribution.rounds.documents import Missing
from tests.attribution import consortia
from tests.attribution.importers.recordings import (
    ADAPTER,
    PREFIX,
    Recording,
    adapter_start,
    fedavg,
    idle,
    merged,
    norm,
    parts,
    residuals,
    slowed,
)

MEMBERS = ("north", "south", "east", "late", "rider", "never")
ROUNDS = ({"north": 40, "south": 20, "rider": 5}, {"north": 10, "east": 30}, {"east": 3, "late": 1, "rider": 1})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untied base model on disk."""
    folder = tmp_path_factory.mktemp("base")
    consortia.save_base(consortia.base_model("llama", tied=False), folder)
    return folder


@pytest.fixture(scope="module")
def recording(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Three rounds of LoRA, which nobody touches."""
    return lora(base, tmp_path_factory.mktemp("recorded") / "rounds")


@pytest.fixture(scope="module")
def imported(base: Path, recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of these rounds, which nobody touches."""
    return take(base, recording, tmp_path_factory.mktemp("imported") / "bundle").path


def lora(base: Path, folder: Path, **settings) -> Recording:
    """A recording of three rounds of LoRA."""
    missing = [Missing(client="south", node="17", reason="killed"), Missing(node="99", reason="is no member")]
    start = adapter_start(load_model(base))
    recording = Recording(folder, MEMBERS, start, **({"adapter": ADAPTER} | settings)).run(*ROUNDS[:2])
    return recording.run(ROUNDS[2], missing=missing)


def take(base: Path, recording: Recording, target: Path) -> Bundle:
    """The bundle of a recording, imported and opened again; it verifies."""
    bundle = open_bundle(import_rounds(recording.folder, f"path:{base}", target).path)
    assert () == verify_bundle(bundle).problems
    return bundle


def assert_is_the_oracles(bundle: Bundle, recording: Recording, base: Path, scalings=lambda _: 2.0) -> None:
    """Parts, global model and residuals of a bundle are those of the oracle, which multiplies everything out."""
    for client, expected in parts(recording, scalings).items():
        update = bundle.updates[client]
        size = norm(expected)
        actual = {name: update.difference(name) for name in expected}
        left = {
            name: value - (0 if actual[name] is None else actual[name].double()) for name, value in expected.items()
        }
        assert norm(left) <= 1e-6 * size + 1e-12, client
        assert update.parameters() <= expected.keys()
    weights, served = (dict(load_model(folder).named_parameters()) for folder in (base, bundle.global_path))
    end = merged(recording.states[-1], scalings)
    for name, value in served.items():
        whole = f"{PREFIX}{name}" in recording.start or name in recording.start
        expected = weights[name].double() * (0 if whole else 1) + end.get(name, 0)
        torch.testing.assert_close(expected, value.double(), rtol=1e-6, atol=1e-6)
    for expected, entry in zip(residuals(recording, scalings), bundle.manifest.rounds, strict=True):
        assert math.isclose(norm(expected), entry.residual_norm, rel_tol=1e-4, abs_tol=1e-6)


def test_parts_and_residuals_are_those_of_the_oracle(base, recording, imported):
    """With FedAvg of A and B apart; who joined late, left early or came twice has the part of the rounds it was in."""
    bundle = open_bundle(imported)
    assert_is_the_oracles(bundle, recording, base)

    manifest = bundle.manifest
    assert ("valley", 3, "recorded") == (manifest.consortium, manifest.round, manifest.aggregation)
    assert MEMBERS == bundle.client_ids
    assert ["North", "South", "East", "Late", "Rider", "Never"] == [client.name for client in manifest.clients]
    assert [0, 0, 0.6, 0.2, 0.2, 0] == [client.weight for client in manifest.clients]
    assert {"east", "late", "rider"} == bundle.last_round.keys()
    assert all(client.kind == "lora" for client in manifest.clients)
    assert 0 == manifest.start_norm


def test_what_is_recorded_of_a_round_is_in_the_manifest(recording, imported):
    """Who sent what with which weight and hash, who was missing and why, and the hashes of the global models."""
    manifest = open_bundle(imported).manifest
    documents = [json.loads((recording.folder / f"round-000{n}" / "round.json").read_text()) for n in (1, 2, 3)]

    for document, entry in zip(documents, manifest.rounds, strict=True):
        written = entry.model_dump(mode="json")
        assert [document[key] for key in ("round", "before_sha256", "after_sha256", "missing")] == [
            written[key] for key in ("round", "before_sha256", "after_sha256", "missing")
        ]
        assert [(each["client"], each["weight"], each["sha256"]) for each in document["updates"]] == [
            (update.client, update.declared, update.sha256) for update in entry.updates
        ]
    for number, (entry, sent) in enumerate(zip(manifest.rounds, recording.sent, strict=True)):
        before = merged(recording.states[number])
        for update in entry.updates:
            weight, tensors = sent[update.client]
            change = {name: value - before[name] for name, value in merged(tensors).items()}
            assert math.isclose(norm(change), update.norm, rel_tol=1e-5, abs_tol=1e-12)
            assert math.isclose(weight, update.weight)


def test_who_changed_nothing_and_who_never_came_have_empty_updates(imported):
    """Not small ones: their score is 0 without any arithmetic."""
    updates = open_bundle(imported).updates

    assert set() == updates["rider"].parameters() | updates["never"].parameters()
    assert set() != updates["south"].parameters()


@pytest.mark.parametrize(
    ("settings", "scalings"),
    [
        ({"use_rslora": True}, lambda _: 6 / math.sqrt(3)),
        ({"alpha_pattern": {"down_proj": 1.5}}, lambda layer: 0.5 if layer.endswith("down_proj") else 2.0),
        ({"rank_pattern": {"q_proj": 2}}, lambda layer: 3.0 if layer.endswith("q_proj") else 2.0),
    ],
    ids=["rslora", "alphas", "ranks"],
)
def test_scalings_are_those_of_the_adapters_configuration(base, tmp_path, settings, scalings):
    """The same configuration that a folder of PEFT has."""
    recording = Recording(tmp_path / "rounds", MEMBERS, adapter_start(load_model(base)), adapter=ADAPTER | settings)
    if "rank_pattern" in settings:
        for name, value in recording.start.items():
            if ".q_proj." in name:
                recording.start[name] = value[:2].clone() if "lora_A" in name else value[:, :2].clone()
    recording.run(*ROUNDS)

    assert_is_the_oracles(take(base, recording, tmp_path / "bundle"), recording, base, scalings)


def test_parameters_that_are_trained_besides_an_adapter_are_whole_differences(base, tmp_path):
    """PEFT's `modules_to_save`, here head and embedding, by either of the names that PEFT has for them."""
    model = load_model(base)
    start = adapter_start(model)
    start[f"{PREFIX}lm_head.weight"] = model.get_parameter("lm_head.weight").clone()
    start["model.norm.weight"] = model.get_parameter("model.norm.weight") + 0.125
    adapter = ADAPTER | {"modules_to_save": ["lm_head", "norm"]}
    recording = Recording(tmp_path / "rounds", MEMBERS, start, adapter=adapter).run(*ROUNDS)
    bundle = take(base, recording, tmp_path / "bundle")

    assert_is_the_oracles(bundle, recording, base)
    assert {"lm_head.weight", "model.norm.weight"} == bundle.updates["late"].dense.keys()
    assert ["full", "lora"] == [client.kind for client in bundle.manifest.clients][3:5]
    assert math.isclose(0.125 * math.sqrt(32), bundle.manifest.start_norm, rel_tol=1e-5)


class Tied(Recording):
    """A federation of whole models that sends head and embedding, which are one, under both names."""

    def _train(self, before, client):
        tensors = super()._train(before, client)
        return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}


@pytest.mark.parametrize("kind", [Recording, Tied], ids=["untied", "tied"])
def test_whole_models_are_whole_differences(tmp_path, kind):
    """A federation without adapters; a head that is tied to the embedding has no part of its own."""
    consortia.save_base(consortia.base_model("llama", tied=kind is Tied), tmp_path / "base")
    start = {name: value.clone() for name, value in load_model(tmp_path / "base").state_dict().items()}
    recording = kind(tmp_path / "rounds", MEMBERS, start).run(*ROUNDS)
    bundle = take(tmp_path / "base", recording, tmp_path / "bundle")
    if kind is Tied:
        assert all("lm_head.weight" not in update.dense for update in bundle.updates.values())
        for tensors in (start, *recording.states, *(each for sent in recording.sent for _, each in sent.values())):
            tensors.pop("lm_head.weight", None)

    assert_is_the_oracles(bundle, recording, tmp_path / "base")
    assert all(entry.residual_norm < 1e-5 for entry in bundle.manifest.rounds)
    assert ["full"] * 4 + ["lora"] * 2 == [client.kind for client in bundle.manifest.clients]


@pytest.mark.parametrize("server", [slowed, idle], ids=["half a step", "nothing"])
def test_what_a_server_does_besides_averaging_is_no_clients(base, tmp_path, server):
    """With a learning rate of its own the parts of clients are those of what they sent, and the rest is residual."""
    recording = lora(base, tmp_path / "rounds", server=server)
    bundle = take(base, recording, tmp_path / "bundle")

    assert_is_the_oracles(bundle, recording, base)
    total = [merged(recording.states[-1])[name] for name in sorted(merged(recording.start))]
    clients = parts(recording)
    left = {
        name: value - sum(clients[client].get(name, 0) for client in MEMBERS)
        for name, value in zip(sorted(merged(recording.start)), total, strict=True)
    }
    assert math.isclose(norm(left), bundle.manifest.global_.residual_norm, rel_tol=1e-4)


def test_an_exact_server_leaves_only_rounding(base, tmp_path):
    """With A frozen, as in FFA-LoRA, the mean of the products is the product of the means."""

    def frozen(before, sent):
        return {name: before[name] if "lora_A" in name else value for name, value in fedavg(before, sent).items()}

    class Frozen(Recording):
        def _train(self, before, client):
            return {name: before[name] if "lora_A" in name else value
                    for name, value in super()._train(before, client).items()}  # fmt: skip

    start = adapter_start(load_model(base))
    recording = Frozen(tmp_path / "rounds", MEMBERS, start, server=frozen, adapter=ADAPTER).run(*ROUNDS)
    bundle = take(base, recording, tmp_path / "bundle")

    assert_is_the_oracles(bundle, recording, base)
    assert all(entry.residual_norm < 1e-5 for entry in bundle.manifest.rounds)
    assert bundle.manifest.global_.residual_norm < 1e-4


def test_updates_in_half_precision_are_taken(base, tmp_path):
    """What a client's own rounding did is the server's, who made the mean of it."""
    recording = lora(base, tmp_path / "rounds", dtype=torch.bfloat16)
    bundle = take(base, recording, tmp_path / "bundle")

    expected = norm(parts(recording)["north"])
    actual = {name: bundle.updates["north"].difference(name) for name in bundle.updates["north"].parameters()}
    assert math.isclose(expected, norm(actual), rel_tol=1e-2)


def test_ten_of_fifty_five_take_part(base, tmp_path):
    """Absent clients keep the part of the rounds in which they were; those never drawn are there with none."""
    members = [f"clinic-{number}" for number in range(55)]
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randperm(55, generator=generator)[:10].tolist() for _ in range(6)]
    rounds = [{members[index]: float(10 + index) for index in draw} for draw in draws]
    start = adapter_start(load_model(base))
    recording = Recording(tmp_path / "rounds", members, start, adapter=ADAPTER).run(*rounds)
    bundle = take(base, recording, tmp_path / "bundle")

    assert_is_the_oracles(bundle, recording, base)
    drawn = {members[index] for draw in draws for index in draw}
    assert drawn == {client for client, update in bundle.updates.items() if update.parameters()}
    assert len(drawn) < 55
    assert {members[index] for index in draws[-1]} == bundle.last_round.keys()


def test_a_round_in_which_nobody_sent_anything_changes_nothing(base, tmp_path):
    """It is the last one here: nobody has an update of the last round, and all keep what they taught before."""
    recording = lora(base, tmp_path / "rounds", server=slowed)
    before = take(base, recording, tmp_path / "before")
    recording.server = idle
    bundle = take(base, recording.run({}, missing=[Missing(client="north", reason="late")]), tmp_path / "bundle")

    last = bundle.manifest.rounds[-1]
    assert (4, 0, ()) == (last.round, last.residual_norm, last.updates)
    assert {} == bundle.last_round
    assert [client.sha256 for client in before.manifest.clients] == [c.sha256 for c in bundle.manifest.clients]


@pytest.mark.parametrize(
    ("factor", "whole"),
    [(".lora_{}.weight", ""), (".lora_{}.default.weight", ".modules_to_save.default"), ("", ".modules_to_save")],
)
def test_tensors_may_have_any_of_the_names_that_peft_gives_them(base, tmp_path, factor, whole):
    """With its prefix or without, with the adapter's name within or without."""
    model = load_model(base)
    start = {"lm_head.weight": model.get_parameter("lm_head.weight").clone()}
    start |= {name.removeprefix(PREFIX): value for name, value in adapter_start(model).items()}

    def rename(name: str) -> str:
        for half in "AB":
            name = name.replace(f".lora_{half}.weight", factor.format(half) or f".lora_{half}.weight")
        return (PREFIX if whole else "") + name.replace("lm_head.weight", f"lm_head{whole}.weight")

    plain = Recording(tmp_path / "plain", MEMBERS, start, adapter=ADAPTER).run(*ROUNDS)
    named = {rename(name): value for name, value in start.items()}
    renamed = Recording(tmp_path / "renamed", MEMBERS, named, adapter=ADAPTER).run(*ROUNDS)
    bundles = [take(base, each, tmp_path / f"{each.folder.name}-bundle") for each in (plain, renamed)]

    one, other = ([client.sha256 for client in bundle.manifest.clients] for bundle in bundles)
    assert one == other


def test_more_rounds_take_the_place_of_the_older_bundle(base, tmp_path):
    """A round later the grown folder is imported again; who was not in it has the same update, byte for byte."""
    recording = lora(base, tmp_path / "rounds")
    first = take(base, recording, tmp_path / "first")
    recording.run({"north": 1, "late": 1})
    second = take(base, recording, tmp_path / "bundle")
    changes = {change.client: change.state for change in client_changes(first, second)}

    assert 4 == second.manifest.round
    assert first.manifest.rounds == second.manifest.rounds[:3]
    assert {"north": "changed", "late": "changed", "south": "unchanged", "east": "unchanged"}.items() <= changes.items()


def test_the_same_folder_gives_the_same_bundle(base, recording, imported, tmp_path):
    """So that whoever has the rounds can say whether a bundle is theirs."""
    again = take(base, recording, tmp_path / "bundle")

    assert (imported / "consortium.json").read_bytes() == (again.path / "consortium.json").read_bytes()


class TestRefusals:
    """What was altered after it was recorded, or cannot be attributed, is refused by name, and nothing is written."""

    @pytest.fixture
    def folder(self, recording: Recording, tmp_path: Path) -> Path:
        """A copy of the rounds, to be spoilt."""
        return Path(shutil.copytree(recording.folder, tmp_path / "rounds"))

    def swap(self, folder: Path) -> None:
        """Two clients' updates change places."""
        one, other = (folder / "round-0001" / f"update-{name}.safetensors" for name in ("north", "south"))
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)

    def drop_file(self, folder: Path) -> None:
        """A client's update is gone."""
        (folder / "round-0001" / "update-south.safetensors").unlink()

    def drop_entry(self, folder: Path) -> None:
        """A client is struck from the list, and its file stays."""
        edit(folder / "round-0001" / "round.json", lambda document: document["updates"].pop(1))

    def replay(self, folder: Path) -> None:
        """The first round again, as the last."""
        shutil.copytree(folder / "round-0001", folder / "round-0004")

    def replay_renumbered(self, folder: Path) -> None:
        """The same under the number that it stands at."""
        self.replay(folder)
        edit(folder / "round-0004" / "round.json", lambda document: document.update(round=4))

    def lose_round(self, folder: Path) -> None:
        """A round is missing."""
        shutil.rmtree(folder / "round-0002")

    def double(self, folder: Path) -> None:
        """A client is listed twice."""
        edit(
            folder / "round-0001" / "round.json",
            lambda document: document["updates"].append(document["updates"][0]),
        )

    def estrange(self, folder: Path) -> None:
        """A client is none of the members."""
        edit(folder / "rounds.json", lambda document: document["members"].pop(0))

    def alter_global(self, folder: Path) -> None:
        """The last global model is another one."""
        path = folder / "round-0003" / "global.safetensors"
        tensors = load_file(path)
        next(iter(tensors.values()))[0, 0] += 1
        save_file(tensors, path)

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (swap, "round-0001/update-north.safetensors: has another hash"),
            (drop_file, "round-0001/update-south.safetensors"),
            (drop_entry, "round-0001/update-south.safetensors: .*names no such file"),
            (replay, "round-0004/round.json: round: is 1"),
            (replay_renumbered, "round-0004/round.json: before_sha256: wrong base"),
            (lose_round, "round-0002: is missing"),
            (double, "client 'north' is in the round twice"),
            (estrange, "client 'north' is no member"),
            (alter_global, "round-0003/global.safetensors: has another hash"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_rounds_that_were_altered_are_refused(self, base, folder, tmp_path, spoil, reason):
        """Swapped, dropped and doubled updates, replayed and missing rounds, a wrong base, a stranger."""
        spoil(self, folder)
        with pytest.raises(RoundsError, match=reason):
            import_rounds(folder, f"path:{base}", tmp_path / "out" / "bundle")

        assert [] == list((tmp_path / "out").glob("*"))

    def test_rounds_over_another_base_are_refused(self, recording, tmp_path):
        """Where its layers have other sizes; the tensor is named."""
        wide = consortia.base_model("llama", intermediate_size=64)
        reference = consortia.save_base(wide, tmp_path / "wide")
        with pytest.raises(BundleError, match=r"down_proj\.lora_A\.weight' has shape \(3, 48\).* needs \(3, 64\)"):
            import_rounds(recording.folder, reference, tmp_path / "bundle")

    def test_an_adapter_of_another_base_is_told_of(self, base, tmp_path):
        """Names cannot prove it, so it is a remark."""
        recording = lora(base, tmp_path / "rounds", adapter=ADAPTER | {"base_model_name_or_path": "org/Elsewhere"})
        told: list[str] = []
        import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle", told.append)

        assert 1 == sum("says that it was trained on 'org/Elsewhere'" in each for each in told)

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"use_dora": True}, "use_dora = True is not supported"),
            ({"peft_type": "IA3"}, "peft_type is not LORA"),
            ({"target_modules": ["q_proj"]}, "no parameter of this base model, and no factor of a layer"),
            ({"target_modules": ["q_proj", "v_proj", "down_proj", "up_proj"]}, "up_proj.lora_A.weight' is missing"),
            ({"r": 4}, r"has shape \(3, 32\), this base model needs \(4, 32\)"),
            ({"target_modules": "(a+)+$"}, "names no layer"),
        ],
        ids=str,
    )
    def test_adapters_that_cannot_be_imported_are_refused_as_in_folders(self, base, tmp_path, settings, reason):
        """By the key of the configuration, or by the tensor that does not fit it."""
        recording = lora(base, tmp_path / "rounds", adapter=ADAPTER | settings)
        with pytest.raises(BundleError, match=reason) as told:
            import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle")

        assert str(recording.folder) in str(told.value)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [(math.nan, "update-north.safetensors: tensor .* holds NaN"), (math.inf, "holds NaN or infinity")],
    )
    def test_numbers_that_are_none_are_refused(self, base, tmp_path, value, reason):
        """A client's training blew up, and the server went on without noticing."""

        class Broken(Recording):
            def _train(self, before, client):
                tensors = super()._train(before, client)
                next(iter(tensors.values()))[0, 0] = value if client == "north" else 0
                return tensors

        start = adapter_start(load_model(base))
        recording = Broken(tmp_path / "rounds", MEMBERS, start, server=idle, adapter=ADAPTER).run(*ROUNDS)
        with pytest.raises(BundleError, match=reason):
            import_rounds(recording.folder, f"path:{base}", tmp_path / "bundle")

    def test_a_head_that_is_tied_cannot_change_alone(self, tmp_path):
        """In a model with one matrix for both, a trained copy of the head has no place."""
        reference = consortia.save_base(consortia.base_model("llama"), tmp_path / "base")
        start = adapter_start(load_model(tmp_path / "base"))
        start["lm_head.weight"] = load_model(tmp_path / "base").lm_head.weight.clone()
        recording = Recording(tmp_path / "rounds", MEMBERS, start, adapter=ADAPTER).run(*ROUNDS)
        with pytest.raises(BundleError, match=r"'lm_head\.weight' is tied to 'model\.embed_tokens\.weight'"):
            import_rounds(recording.folder, reference, tmp_path / "bundle")

    def test_a_copy_of_a_tied_matrix_has_to_be_one(self, tmp_path):
        """Whole models whose head went another way than the embedding are of another architecture."""
        reference = consortia.save_base(consortia.base_model("llama"), tmp_path / "base")
        start = {name: value.clone() for name, value in load_model(tmp_path / "base").state_dict().items()}
        recording = Recording(tmp_path / "rounds", MEMBERS, start).run(*ROUNDS)
        with pytest.raises(BundleError, match=r"'lm_head\.weight' differs from 'model\.embed_tokens\.weight'"):
            import_rounds(recording.folder, reference, tmp_path / "bundle")

    def test_nothing_but_a_bundle_is_replaced(self, base, recording, tmp_path):
        """A folder of somebody's is left alone, and refused before the rounds are read."""
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(DestinationError):
            import_rounds(recording.folder, f"path:{base}", tmp_path)

    def test_what_is_no_folder_of_rounds_is_refused(self, base, tmp_path):
        """Its front page is missing."""
        with pytest.raises(AttributionError, match=r"rounds\.json"):
            import_rounds(tmp_path, f"path:{base}", tmp_path / "bundle")


def edit(path: Path, change) -> None:
    """Alter a document."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
