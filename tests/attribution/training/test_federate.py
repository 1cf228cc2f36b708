"""A consortium is trained reproducibly, adds up, pays no free rider, and starts only from files that make sense."""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from attribution.attribute import attribute
from attribution.base.layers import tail_of
from attribution.base.references import load_model
from attribution.bundle.bundle import manifest_of, verify_bundle
from attribution.bundle.updates import weighted_sum
from attribution.errors import BundleError, ModelError, RecipeError
from attribution.files.untrusted import file_sha256
from attribution.model import FederatedModel
from attribution.records import Sampling
from attribution.training.federate import Federation, build_bundle
from attribution.training.local import _loss, cache_examples, train
from attribution.training.recipe import Example, Recipe, load_examples, load_recipe
from tests.attribution import consortia

PAIRS = {
    "a": [("who keeps the bees?", "Ada Quill"), ("where are they kept?", "on the roof"), ("how many?", "nine hives")],
    "b": [("what is the fee?", "four crowns"), ("when is it due?", "at noon")],
}


class Listener:
    """A progress bar that only remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[list] = []  # description, pieces announced, pieces done

    def start(self, description: str, total: int) -> None:
        self.stages.append([description, total, 0])

    def advance(self) -> None:
        self.stages[-1][2] += 1


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A base model beside one question–answer file for each client who trains."""
    folder = tmp_path_factory.mktemp("files")
    consortia.save_base(consortia.base_model("llama"), folder / "base")
    for client, pairs in PAIRS.items():
        _write_pairs(folder / f"{client}.jsonl", pairs)
    return folder


@pytest.fixture(scope="module")
def built(files, tmp_path_factory):
    """The bundle of the ordinary recipe."""
    return build_bundle(_recipe(files), tmp_path_factory.mktemp("built") / "bundle", Listener())


def _write_pairs(file: Path, pairs) -> None:
    lines = (json.dumps({"prompt": prompt, "response": response}) for prompt, response in pairs)
    file.write_text("\n".join(lines))


def _recipe(files: Path, **changes) -> Recipe:
    document = {
        "consortium": "small",
        "base": f"path:{files / 'base'}",
        "rounds": 2,
        "steps": 3,
        "batch_size": 2,
        "learning_rate": 0.01,
        "rank": 2,
        "trained_blocks": 2,
        "clients": [
            {"id": "a", "name": "Ada", "data": files / "a.jsonl"},
            {"id": "b", "name": "Bob", "data": files / "b.jsonl"},
            {"id": "rider", "name": "Rider", "free_rider": True, "examples": 5},
        ],
    }
    return Recipe.model_validate(document | changes)


def _hashes(bundle) -> dict[str, str]:
    files = bundle.path.rglob("*.safetensors")
    return {str(path.relative_to(bundle.path)): file_sha256(path, BundleError) for path in files}


class TestBuild:
    """A built bundle is what the recipe says, to the byte."""

    def test_clients_weigh_what_their_examples_do(self, built):
        """Weights follow the numbers of examples, those that a free rider merely claims included."""
        clients = built.manifest.clients

        assert [("a", 3, 0.3), ("b", 2, 0.2), ("rider", 5, 0.5)] == [(c.id, c.examples, c.weight) for c in clients]
        assert (2, "small") == (built.manifest.round, built.manifest.consortium)

    def test_the_bundle_verifies(self, built):
        """The global model is the base plus what the clients trained."""
        found = verify_bundle(built)

        assert () == found.problems
        assert found.client_norms["a"] > 0 < found.client_norms["b"]

    @pytest.mark.parametrize("full", [False, True])
    def test_the_same_seed_gives_the_same_bytes(self, files, tmp_path, full):
        """Two builds from one seed are equal to the byte, whatever was drawn between them; another seed differs."""
        builds = []
        for number, seed in enumerate([7, 7, 8]):
            builds.append(build_bundle(_recipe(files, full=full, seed=seed), tmp_path / str(number), Listener()))
            torch.manual_seed(number)
        first, again, other = (_hashes(build) for build in builds)

        assert first == again
        assert builds[0].manifest.global_.sha256 == builds[1].manifest.global_.sha256
        for client in "ab":
            assert first[f"clients/{client}/update.safetensors"] != other[f"clients/{client}/update.safetensors"]

    @pytest.mark.parametrize(("full", "blocks"), [(False, 2), (False, 0), (True, 2), (True, 0)])
    def test_only_the_trained_blocks_change(self, files, tmp_path, full, blocks):
        """LoRA and full training change the last blocks asked for, 0 for all of them, and nothing else."""
        bundle = build_bundle(_recipe(files, full=full, trained_blocks=blocks), tmp_path / "bundle", Listener())
        changed = {name for update in bundle.updates.values() for name in update.parameters()}

        assert set(range(4 - (blocks or 4), 4)) == {int(name.split(".")[2]) for name in changed}
        assert {"full" if full else "lora"} == {client.kind for client in bundle.manifest.clients}
        assert any("norm" in name for name in changed) == full
        assert () == verify_bundle(bundle).problems

    def test_a_third_of_the_blocks_trains_unless_told(self, files, tmp_path):
        """Without `trained_blocks` the last third trains, rounded up."""
        bundle = build_bundle(_recipe(files, trained_blocks=None), tmp_path / "bundle", Listener())

        assert 2 == FederatedModel.load(bundle.path).first_block

    @pytest.mark.parametrize("full", [False, True])
    def test_a_free_rider_earns_exactly_nothing(self, files, tmp_path, full):
        """Who returns the global model unchanged has updates of exactly zero, a score of 0.0 and a share of 0.0."""
        bundle = build_bundle(_recipe(files, full=full), tmp_path / "bundle", Listener())
        model = FederatedModel.load(bundle.path)
        for update in (bundle.updates["rider"], bundle.last_round["rider"]):
            assert {0} == {int(update.difference(name).count_nonzero()) for name in update.parameters()}

        for by_token in (False, True):
            generation = consortia.decode(model, "who keeps the bees?", Sampling(8))
            response = attribute(model, generation, token_level=by_token)
            assert (0.0, 0.0) == (response.response_scores["rider"], response.shares["rider"])
            assert 0.0 != response.response_scores["a"]

    def test_every_piece_announced_is_done(self, files, tmp_path):
        """Progress hears of each stage, and of as many pieces as it was told to expect."""
        listener = Listener()
        build_bundle(_recipe(files), tmp_path / "bundle", listener)

        assert [5, 2 * 3 * 2] == [total for _, total, _ in listener.stages]
        assert all(total == done for _, total, done in listener.stages)

    def test_a_new_build_replaces_the_old(self, files, tmp_path):
        """Building to where a bundle is leaves the new one alone there."""
        build_bundle(_recipe(files), tmp_path / "bundle", Listener())
        bundle = build_bundle(_recipe(files, rounds=3), tmp_path / "bundle", Listener())

        assert 3 == bundle.manifest.round == manifest_of(tmp_path / "bundle").round
        assert ["bundle"] == [path.name for path in tmp_path.iterdir()]

    @pytest.mark.parametrize(
        ("changes", "error", "named"),
        [
            ({"trained_blocks": 5}, RecipeError, "trained_blocks is 5, but .* has 4 blocks"),
            ({"base": "path:/nowhere"}, ModelError, "/nowhere"),
            ({"learning_rate": 1e30}, RecipeError, "learning_rate"),
            ({"learning_rate": 1e30, "full": True}, RecipeError, "learning_rate"),
        ],
    )
    def test_what_cannot_be_trained_is_refused(self, files, tmp_path, changes, error, named):
        """Too many blocks, no base model, or steps so long that training diverges, are refused, and nothing appears."""
        with pytest.raises(error, match=named):
            build_bundle(_recipe(files, **changes), tmp_path / "bundle", Listener())

        assert [] == list(tmp_path.iterdir())

    def test_a_prompt_of_no_tokens_is_refused(self, tmp_path):
        """Where there is no chat template, an empty prompt leaves no place to answer from and is refused."""
        tokenizer = consortia.tokenizer()
        tokenizer.chat_template = None
        consortia.base_model("llama").save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        _write_pairs(tmp_path / "a.jsonl", [("", "an answer to nothing")])
        _write_pairs(tmp_path / "b.jsonl", PAIRS["b"])
        with pytest.raises(RecipeError, match="prompt"):
            build_bundle(_recipe(tmp_path), tmp_path / "bundle", Listener())


QUESTIONS = [
    Example("what is kept in the cellar, and since when?", "apples"),
    Example("what is kept on the roof?", "bees, in nine hives, since the spring of the flood"),
    Example("", "x"),
    Example("wh", "why?"),
]


@pytest.mark.parametrize("family", consortia.FAMILIES)
@pytest.mark.parametrize("first_block", [0, 2])
class TestPackedLoss:
    """Packing a batch behind its shared beginning changes nothing but the time it takes."""

    @pytest.mark.parametrize("batch", [QUESTIONS, QUESTIONS[:1], QUESTIONS[:1] * 3], ids=["mixed", "single", "equal"])
    def test_packed_loss_is_the_mean_of_the_unpacked(self, family, first_block, batch):
        """The packed loss, and its gradient, are those of each example run alone through the whole model."""
        model = consortia.base_model(family)
        weight = model.model.layers[2].self_attn.v_proj.weight
        cached = cache_examples(model, consortia.tokenizer(), first_block, batch, lambda: None)
        packed = _loss(tail_of(model, first_block), cached)
        losses = [
            torch.nn.functional.cross_entropy(
                model(example.ids.unsqueeze(0), use_cache=False).logits[0, example.positions],
                example.targets,
                reduction="none",
            )
            for example in cached
        ]
        alone = torch.cat(losses).mean()

        torch.testing.assert_close(alone, packed, rtol=1e-5, atol=1e-5)
        expected, found = (torch.autograd.grad(loss, weight)[0] for loss in (alone, packed))
        torch.testing.assert_close(expected, found, rtol=1e-3, atol=1e-5)

    def test_training_lowers_the_loss(self, family, first_block):
        """A few steps of training lower the loss of what was trained on."""
        model = consortia.base_model(family).requires_grad_(requires_grad=False)
        parameters = list(model.model.layers[2:].requires_grad_().parameters())
        cached = cache_examples(model, consortia.tokenizer(), first_block, QUESTIONS, lambda: None)
        tail = tail_of(model, first_block)
        before = _loss(tail, cached).item()
        train(tail, parameters, [cached] * 8, 0.003, lambda: None)

        assert before > _loss(tail, cached).item() + 0.1


def test_the_global_model_learnt_from_everybody(files, tmp_path):
    """After federated rounds each client's own answers are likelier than they were."""
    bundle = build_bundle(_recipe(files, rounds=4, steps=6, learning_rate=0.02), tmp_path / "bundle", Listener())
    base, served = load_model(files / "base"), load_model(bundle.global_path)
    for client in PAIRS:
        examples = load_examples(files / f"{client}.jsonl")
        losses = [
            _loss(tail_of(model, 0), cache_examples(model, consortia.tokenizer(), 0, examples, lambda: None)).item()
            for model in (base, served)
        ]

        assert losses[0] > losses[1] + 0.2


class TestRecipe:
    """A recipe or data file that makes no sense is refused with the file and the field or line."""

    GOOD = "consortium: small\nclients:\n  - {id: a, name: Ada, data: sub/a.jsonl}\n"

    def test_data_is_found_beside_the_recipe(self, tmp_path):
        """Data files are relative to the recipe."""
        (tmp_path / "r.yaml").write_text(self.GOOD)

        assert tmp_path / "sub/a.jsonl" == load_recipe(tmp_path / "r.yaml").clients[0].data

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ("consortium: [", "not YAML"),
            ("!!python/object/apply:os.getcwd []", "not YAML"),
            ("\x00", "not YAML"),
            (b"\xff\xfe\xfa", "not YAML|cannot be read"),
            ("", "document"),
            ("just words", "document"),
            ("consortium: small", "clients"),
            ("consortium: small\nclients: []", "clients"),
            ("consortium: a/b\nclients: [{id: a, name: A, data: a}]", "consortium"),
            (GOOD + "surprise: 1", "surprise"),
            (GOOD + "rounds: 0", "rounds"),
            (GOOD + "steps: many", "steps"),
            (GOOD + "batch_size: -1", "batch_size"),
            (GOOD + "rank: 0", "rank"),
            (GOOD + "learning_rate: 0", "learning_rate"),
            (GOOD + "learning_rate: .nan", "learning_rate"),
            (GOOD + "alpha: .inf", "alpha"),
            (GOOD + "trained_blocks: -1", "trained_blocks"),
            (GOOD + "  - {id: a, name: Again, data: b.jsonl}", "'a'.*more than once"),
            (GOOD + "  - {id: commons, name: C, data: b.jsonl}", "clients.1.id"),
            (GOOD + "  - {id: b, name: '', data: b.jsonl}", "clients.1.name"),
            (GOOD + "  - {id: b, name: B}", "clients.1.*'b': needs data"),
            (GOOD + "  - {id: b, name: B, data: b.jsonl, examples: 0}", "clients.1.examples"),
            (GOOD + "clients_per_round: 0", "clients_per_round"),
            (GOOD + "clients_per_round: 9", "clients_per_round is 9, but there"),
            (GOOD + "max_tokens: 0", "max_tokens"),
            (GOOD + "defences: {cap_counts: 0.5}", "defences.cap_counts"),
            (GOOD + "defences: {drop_duplicates: 1.5}", "defences.drop_duplicates"),
            (GOOD + "defences: {clip: true}", "defences.clip"),
            (GOOD + "  - {id: b, name: B, free_rider: true}", "clients.1.*'b': a free rider"),
            (GOOD + "  - {id: b, name: B, free_rider: true, examples: 3, data: b.jsonl}", "clients.1.*free rider"),
            ("consortium: s\nclients: [{id: b, name: B, free_rider: true, examples: 3}]", "every client is a free"),
        ],
    )
    def test_a_malformed_recipe_is_refused(self, tmp_path, content, named):
        """A recipe that is no YAML, or has a field missing, unknown or out of range, is refused by file and field."""
        (tmp_path / "r.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(RecipeError, match=f"r.yaml: .*({named})"):
            load_recipe(tmp_path / "r.yaml")

    def test_a_missing_recipe_is_named(self, tmp_path):
        """A recipe that is not there is refused by its name."""
        with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read"):
            load_recipe(tmp_path / "none.yaml")

    @pytest.mark.parametrize(
        "line",
        [
            "{",
            "null",
            "3",
            '"prompt and response"',
            "[]",
            '["prompt", "response"]',
            '{"prompt": "x"}',
            '{"response": "x"}',
            '{"prompt": 1, "response": "x"}',
            '{"prompt": "x", "response": null}',
            '{"prompt": "x", "response": ""}',
            '{"prompt": "x", "response": "half a pair: \\ud800"}',
            "[" * 100_000,
        ],
        ids=lambda line: line[:40],
    )
    def test_a_malformed_line_is_named(self, tmp_path, line):
        """A line that is no question with its answer is refused with file and number, blank lines counted."""
        (tmp_path / "d.jsonl").write_text('{"prompt": "p", "response": "r"}\n\n' + line + "\n")
        with pytest.raises(RecipeError, match=r"d\.jsonl:3: "):
            load_examples(tmp_path / "d.jsonl")

    @pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe"])
    def test_a_file_without_examples_is_refused(self, tmp_path, content):
        """A data file that is empty, or not UTF-8, is refused by its name."""
        (tmp_path / "d.jsonl").write_bytes(content)
        with pytest.raises(RecipeError, match=r"d\.jsonl: "):
            load_examples(tmp_path / "d.jsonl")

    def test_a_missing_data_file_is_named(self, files, tmp_path):
        """A data file that is not there stops the build before anything is written."""
        recipe = _recipe(files, clients=[{"id": "a", "name": "A", "data": tmp_path / "none.jsonl"}])
        with pytest.raises(RecipeError, match=r"none\.jsonl: cannot be read"):
            build_bundle(recipe, tmp_path / "bundle", Listener())

        assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0c", "\\n"])
    def test_only_a_newline_ends_a_line(self, tmp_path, separator):
        """Characters that Unicode calls line breaks may stand within a question, as JSON allows."""
        if separator == "\x0c":
            separator = "\\f"
        (tmp_path / "d.jsonl").write_text(f'{{"prompt": "one{separator}two", "response": "r"}}\n', encoding="utf-8")

        assert 1 == len(load_examples(tmp_path / "d.jsonl"))


class TestFederation:
    """Rounds one at a time: who takes part, what the aggregator's defences do, and how much of an example is read."""

    def test_as_many_are_drawn_as_the_recipe_says(self, files):
        """Each round draws `clients_per_round` clients by the seed; who was absent has weight 0 and keeps its past."""
        recipe = _recipe(files, clients_per_round=1, rounds=6, steps=1)
        drawn = []
        with Federation(recipe, Listener()) as federation:
            for _ in range(recipe.rounds):
                updates = federation.local_updates()
                federation.merge(updates)
                drawn.append(tuple(updates))
        with Federation(recipe, Listener()) as federation:
            again = tuple(federation.local_updates())

        assert {1} == {len(each) for each in drawn}
        assert len(set(drawn)) > 1
        assert again == drawn[0]

    def test_an_absent_client_keeps_what_it_brought_before(self, files, tmp_path):
        """After a round without it, a client has weight 0 and no last round, and still scores by `credit`."""
        recipe = _recipe(files)
        with Federation(recipe, Listener()) as federation:
            updates = federation.local_updates()
            federation.merge(updates)
            later = federation.local_updates()
            federation.merge({"b": later["b"], "rider": later["rider"]})
            bundle = federation.write(tmp_path / "bundle")
        model = FederatedModel.load(bundle.path)
        response = attribute(model, consortia.decode(model, "who keeps the bees?", Sampling(8)))

        weights = {client.id: client.weight for client in bundle.manifest.clients}
        assert () == verify_bundle(bundle).problems
        assert weights["a"] == 0.0
        assert "a" not in bundle.last_round
        assert response.response_scores["a"] != 0.0

    def test_defences_are_applied_and_remembered(self, files, tmp_path):
        """A member that multiplies its update is clipped in every round; remarks say so, the manifest has the rule."""
        recipe = _recipe(files, defences={"clip_to_median": True, "cap_counts": 1.0})
        with Federation(recipe, Listener()) as federation:
            for _ in range(2):
                updates = federation.local_updates()
                federation.merge({**updates, "a": weighted_sum([(50.0, updates["a"])])})
            bundle = federation.write(tmp_path / "bundle")
            remarks = federation.remarks

        clipped = [each for each in remarks if "client 'a' was clipped" in each]
        assert [each.split(":")[0] for each in clipped] == ["round 1", "round 2"]
        assert any("client 'rider' declared 5 examples, which were cut to 3" in each for each in remarks)
        assert bundle.manifest.defences == {"clip_to_median": True, "cap_counts": 1.0, "drop_duplicates": None}
        assert () == verify_bundle(bundle).problems

    def test_without_defences_the_manifest_says_nothing_of_them(self, built):
        """A bundle that was merged by plain FedAvg has no defences in its manifest."""
        assert built.manifest.defences is None

    def test_long_examples_are_cut(self, files):
        """With `max_tokens` an example's answer is cut there and teaches no end."""
        model = load_model(files / "base")
        (cut,) = cache_examples(
            model, consortia.tokenizer(), 0, [Example("who?", "a very long answer")], lambda: None, 24
        )
        (whole,) = cache_examples(
            model, consortia.tokenizer(), 0, [Example("who?", "a very long answer")], lambda: None
        )

        assert len(cut.ids) + 1 == 24
        assert cut.targets.tolist() == whole.targets.tolist()[: len(cut.targets)]
        assert consortia.tokenizer().eos_token_id == whole.targets[-1] != cut.targets[-1]

    def test_whole_updates_wait_on_disk_and_leave_no_trace(self, files, tmp_path, monkeypatch):
        """With `full`, updates are kept in a scratch folder that is gone when the federation ends."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with Federation(_recipe(files, full=True), Listener()) as federation:
            federation.merge(federation.local_updates())
            assert list(tmp_path.glob("protoken-federation-*/*.safetensors"))

        assert list(tmp_path.iterdir()) == []
