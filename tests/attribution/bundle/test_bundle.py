"""A bundle is opened only whole and unaltered, adds up or says what does not, and is replaced whole or not at all."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from attribution.base.references import weights_sha256
from attribution.bundle.bundle import open_bundle, verify_bundle
from attribution.bundle.updates import LowRank, Update, load_update, save_update, weighted_sum
from attribution.bundle.writing import Member, write_bundle
from attribution.errors import BundleError
from attribution.files.untrusted import file_sha256
from attribution.model import FederatedModel
from tests.attribution import consortia

MANIFEST = "consortium.json"
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}
UPDATED = "model.layers.2.mlp.down_proj"  # a layer that every client of the good bundle has changed
CLIENT_FILES = [f"clients/{client}/{file}.safetensors" for client in "abc" for file in ("update", "last_round")]
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A consortium that nobody touches: `base/` beside `bundle/`."""
    model = consortia.base_model("llama")
    folder = tmp_path_factory.mktemp("good")
    consortia.write_consortium(folder, model, consortia.updates(model), WEIGHTS)
    return folder


@pytest.fixture
def bundle(good, tmp_path) -> Path:
    """A copy of the good bundle, to be spoilt, alone in its folder."""
    return Path(shutil.copytree(good / "bundle", tmp_path / "alone" / "bundle"))


def _edit_manifest(bundle: Path, change) -> None:
    document = json.loads((bundle / MANIFEST).read_text())
    change(document)
    (bundle / MANIFEST).write_text(json.dumps(document))


def _fix_hashes(bundle: Path) -> None:
    """What an attacker does after altering files: every hash in the manifest is made to agree."""

    def change(document):
        document["global"]["sha256"] = weights_sha256(bundle / "global")
        for client in document["clients"]:
            client["sha256"] = file_sha256(bundle / client["path"], BundleError)
            client["last_round_sha256"] = file_sha256(bundle / client["last_round_path"], BundleError)

    _edit_manifest(bundle, change)


def _rewrite(file: Path, change) -> None:
    """Alter the tensors of one safetensors file, and fix the hashes of the bundle around it."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    _fix_hashes(next(parent for parent in file.parents if (parent / MANIFEST).exists()))


def _complaint(bundle: Path) -> str:
    """What verification says of a bundle: the problems that it reports, or its refusal."""
    try:
        return "\n".join(verify_bundle(open_bundle(bundle)).problems)
    except BundleError as error:
        return str(error)


class TestOpen:
    """`open_bundle` reads what was written and refuses everything else, naming the file or the field."""

    def test_a_good_bundle_opens(self, good):
        """An opened bundle gives back its clients in order, with their weights and their updates."""
        model = consortia.base_model("llama")
        written = consortia.updates(model)
        bundle = open_bundle(good / "bundle")

        assert ("a", "b", "c") == bundle.client_ids
        assert [("A", 0.5, "lora"), ("B", 0.3, "lora"), ("C", 0.2, "lora")] == [
            (client.name, client.weight, client.kind) for client in bundle.manifest.clients
        ]
        for client, update in written.items():
            for name, low_rank in update.low_rank.items():
                torch.testing.assert_close(low_rank.A, bundle.last_round[client].low_rank[name].A, rtol=0, atol=0)
                torch.testing.assert_close(
                    WEIGHTS[client] * low_rank.dense(), bundle.updates[client].low_rank[name].dense()
                )

    @pytest.mark.parametrize("file", [MANIFEST, "global/config.json", *CLIENT_FILES])
    def test_a_missing_file_is_named(self, bundle, file):
        """A bundle that lacks a file is refused with the file's name."""
        (bundle / file).unlink()
        with pytest.raises(BundleError, match=file):
            open_bundle(bundle)

    def test_missing_weights_are_named(self, bundle):
        """A bundle without its global weights is refused with the name of their folder."""
        (bundle / "global/model.safetensors").unlink()
        with pytest.raises(BundleError, match="bundle/global"):
            open_bundle(bundle)

    @pytest.mark.parametrize("file", ["global/model.safetensors", "global/config.json", *CLIENT_FILES])
    def test_one_altered_byte_is_noticed(self, bundle, file):
        """One byte changed in a file that is hashed is refused with the name of the file, or of the global folder."""
        _flip_last_byte(bundle / file)
        with pytest.raises(BundleError, match=str(Path(file).parent if "global" in file else file)):
            open_bundle(bundle)

    @pytest.mark.parametrize("file", ["generation_config.json", *TOKENIZER_FILES])
    def test_what_else_the_served_model_reads_is_hashed_too(self, bundle, file):
        """The tokenizer, the chat template and the tokens that end a response cannot be altered unnoticed."""
        _flip_last_byte(bundle / "global" / file)
        with pytest.raises(BundleError, match="global"):
            open_bundle(bundle)

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            (lambda m: m.update(surprise=1), "surprise"),
            (lambda m: m["clients"][0].update(surprise=1), "clients.0.surprise"),
            (lambda m: m.pop("round"), "round"),
            (lambda m: m.update(schema_version=2), "schema_version"),
            (lambda m: m.update(aggregation="median"), "aggregation"),
            (lambda m: m.update(consortium="a/b"), "consortium"),
            (lambda m: m.update(clients=[]), "clients"),
            (lambda m: m["clients"][1].update(id="a"), "'a'.*more than once"),
            (lambda m: m["clients"][0].update(id="commons"), "clients.0.id.*'commons'"),
            (lambda m: m["clients"][0].update(id="pending"), "clients.0.id.*'pending'"),
            (lambda m: m["clients"][0].update(id="../a"), "clients.0.id"),
            (lambda m: m["clients"][0].update(path="../a.safetensors"), "clients.0.path.*leaves the bundle"),
            (lambda m: m["clients"][0].update(path="x/../../a"), "clients.0.path.*leaves the bundle"),
            (lambda m: m["clients"][0].update(last_round_path="/etc/passwd"), "clients.0.last_round_path"),
            (lambda m: m["global"].update(path="../global"), "global.path.*leaves the bundle"),
            (lambda m: m["clients"][0].update(sha256="0" * 63), "clients.0.sha256"),
            (lambda m: m["global"].update(sha256="X" * 64), "global.sha256"),
            (lambda m: m["base"].update(sha256=None), "base.sha256"),
            (lambda m: m["clients"][0].update(last_round_sha256=None), "'a'.*go together"),
            (lambda m: m["clients"][0].update(weight=1.5), "clients.0.weight"),
            (lambda m: m["clients"][0].update(weight=float("nan")), "clients.0.weight"),
            (lambda m: m["clients"][0].update(examples=-1), "clients.0.examples"),
            (lambda m: m["global"].update(residual_norm=float("inf")), "global.residual_norm"),
        ],
    )
    def test_a_malformed_manifest_is_refused(self, bundle, change, field):
        """A manifest with a wrong field is refused with the names of the file and of the field."""
        _edit_manifest(bundle, change)
        with pytest.raises(BundleError, match=f"{MANIFEST}: .*{field}"):
            open_bundle(bundle)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe{}"])
    def test_a_manifest_that_is_no_document_is_refused(self, bundle, content):
        """A manifest that is not a JSON object in UTF-8 is refused with its name."""
        (bundle / MANIFEST).write_bytes(content)
        with pytest.raises(BundleError, match=MANIFEST):
            open_bundle(bundle)

    def test_a_name_given_twice_is_refused(self, bundle):
        """A second weight of a client, which some readers would take and others not, is named with the file."""
        manifest = bundle / MANIFEST
        manifest.write_text(manifest.read_text().replace('"weight":', '"weight": 0.9, "weight":', 1))

        assert "'weight' is given twice" in _complaint(bundle)
        assert MANIFEST in _complaint(bundle)

    def test_a_folder_that_is_no_bundle_is_refused(self, tmp_path):
        """A folder without a manifest is asked whether it is a bundle at all."""
        with pytest.raises(BundleError, match=r"is .* a bundle\?"):
            open_bundle(tmp_path)


class TestUpdateFiles:
    """An update's own contents are checked, however well its hash agrees."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_value_that_is_no_number_is_refused(self, bundle, value):
        """NaN or infinity in an update whose hash was fixed up is refused by file and tensor, read or loaded."""
        file = bundle / "clients/b/update.safetensors"
        _rewrite(file, lambda tensors: tensors[f"{UPDATED}.lora_A.weight"][0, :1].fill_(value))

        for read in (lambda: open_bundle(bundle).updates, lambda: FederatedModel.load(bundle)):
            with pytest.raises(BundleError, match=f"clients/b/update.safetensors: .*{UPDATED}.lora_A.weight"):
                read()

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda t: t.pop(f"{UPDATED}.lora_B.weight"), UPDATED),
            (lambda t: t.pop(f"{UPDATED}.lora_A.weight"), f"{UPDATED}.lora_B.weight"),
            (lambda t: t.update({f"{UPDATED}.lora_B.weight": torch.ones(32, 4)}), UPDATED),
            (lambda t: t.update({f"{UPDATED}.lora_A.weight": torch.ones(3)}), UPDATED),
            (lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int64)}), "model.norm.weight"),
            (lambda t: t.update({"model.norm.weight": torch.ones(32).to(torch.float8_e4m3fn)}), "model.norm.weight"),
        ],
        ids=["no B", "no A", "ranks differ", "A is a vector", "integers", "float8"],
    )
    def test_factors_that_do_not_fit_are_refused(self, bundle, change, named):
        """A factor without its other half, of another rank, or of a type no update has, is refused by name."""
        file = bundle / "clients/a/update.safetensors"
        _rewrite(file, change)
        with pytest.raises(BundleError, match=f"clients/a/update.safetensors: .*{named}"):
            load_update(file)

    def test_a_file_of_another_kind_is_refused(self, bundle):
        """What is not a safetensors file is refused by name."""
        (bundle / "clients/a/update.safetensors").write_bytes(b"not tensors")
        with pytest.raises(BundleError, match=r"clients/a/update\.safetensors: not a readable"):
            load_update(bundle / "clients/a/update.safetensors")

    @pytest.mark.parametrize("kind", ["lora", "full", "everything"])
    def test_an_update_survives_the_disk(self, tmp_path, kind):
        """A saved update is read back name by name and bit by bit."""
        update = consortia.updates(consortia.base_model("qwen2"), kind=kind)["b"]
        save_update(update, tmp_path / "some/where/update.safetensors")
        found = load_update(tmp_path / "some/where/update.safetensors")

        assert update.parameters() == found.parameters()
        for name in update.parameters():
            assert torch.equal(update.difference(name), found.difference(name))


class TestLoad:
    """A served model refuses, when it is loaded, updates that could not be scored later."""

    @pytest.mark.parametrize(
        ("module", "shape"),
        [("model.nowhere", (32, 48)), (UPDATED, (32, 47)), (UPDATED, (31, 48)), ("model.embed_tokens", (259, 32))],
        ids=["no such layer", "inputs differ", "outputs differ", "no linear layer"],
    )
    def test_an_update_that_does_not_fit_the_model_is_refused(self, bundle, module, shape):
        """Factors for a layer that is not there, not linear, or of another shape, are refused by the layer's name."""
        factors = {
            f"{module}.lora_A.weight": torch.ones(3, shape[1]),
            f"{module}.lora_B.weight": torch.ones(shape[0], 3),
        }
        _rewrite(bundle / "clients/a/update.safetensors", lambda tensors: tensors.update(factors))

        with pytest.raises(BundleError, match=module):
            FederatedModel.load(bundle)


class TestVerify:
    """`verify_bundle` finds global = base + Σ D_i, or names what disagrees, whatever the manifest claims."""

    @pytest.mark.parametrize("kind", ["lora", "full", "everything"])
    def test_an_honest_bundle_adds_up(self, tmp_path, kind):
        """An honest bundle has no problems, a residual of rounding alone, and its clients' own norms."""
        model = consortia.base_model("llama")
        updates = consortia.updates(model, kind=kind)
        found = verify_bundle(open_bundle(consortia.write_consortium(tmp_path, model, updates, WEIGHTS)))

        assert () == found.problems
        assert found.residual_norm <= 1e-6 * found.update_norm
        assert len(dict(model.named_parameters())) == found.parameters
        for client, update in updates.items():
            square = sum(float(update.difference(name).square().sum()) for name in update.parameters())
            assert pytest.approx(WEIGHTS[client] * square**0.5, rel=1e-5) == found.client_norms[client]

    @pytest.mark.parametrize("residual", ["left as it was", "declared away"])
    def test_a_scaled_update_is_reported(self, bundle, residual):
        """A client's update doubled for credit is reported, also when the manifest declares the gap as its residual."""

        def double(tensors):
            for name in [name for name in tensors if name.endswith("lora_B.weight")]:
                tensors[name] = 2 * tensors[name]

        _rewrite(bundle / "clients/a/update.safetensors", double)
        if residual == "declared away":
            _edit_manifest(bundle, lambda m: m["global"].update(residual_norm=10.0))

        assert "do not add up" in _complaint(bundle)

    def test_a_parameter_changed_in_both_ways_is_reported(self, bundle):
        """An update that names one layer by factors and once more whole is not scored for more than it added."""

        def smuggle(tensors):
            whole = tensors[f"{UPDATED}.lora_B.weight"] @ tensors[f"{UPDATED}.lora_A.weight"]
            tensors[f"{UPDATED}.weight"] = whole

        _rewrite(bundle / "clients/a/update.safetensors", smuggle)

        assert UPDATED in _complaint(bundle)

    def test_a_dropped_client_is_reported(self, bundle):
        """A bundle that leaves out a client who trained does not add up."""
        _edit_manifest(bundle, lambda m: m["clients"].pop())

        assert "do not add up" in _complaint(bundle)

    def test_a_client_counted_twice_is_reported(self, bundle):
        """One client's file under a second name does not add up."""

        def twin(document):
            document["clients"].append(document["clients"][0] | {"id": "twin"})

        _edit_manifest(bundle, twin)

        assert "do not add up" in _complaint(bundle)

    def test_a_change_credited_to_nobody_is_reported(self, bundle):
        """Global weights that hold more than the clients' updates are reported with the parameter."""
        _rewrite(
            bundle / "global/model.safetensors", lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].add_(0.1)
        )

        assert "model.layers.1.mlp.up_proj.weight" in _complaint(bundle)

    @pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", f"{UPDATED}.weight"])
    def test_a_parameter_missing_from_the_global_weights_is_reported(self, bundle, name):
        """A parameter that the served weights lack, which loading would fill with noise, is reported by name."""
        _rewrite(bundle / "global/model.safetensors", lambda tensors: tensors.pop(name))

        assert name in _complaint(bundle)

    @pytest.mark.parametrize("hash_fixed", [False, True])
    def test_another_base_model_is_reported(self, bundle, tmp_path, hash_fixed):
        """A base model other than the one trained from is reported, by its hash or by what does not add up."""
        reference = consortia.save_base(consortia.base_model("llama", seed=9), tmp_path / "other")
        _edit_manifest(bundle, lambda m: m["base"].update(reference=reference))
        if hash_fixed:
            _edit_manifest(bundle, lambda m: m["base"].update(sha256=weights_sha256(tmp_path / "other")))

        assert ("weights differ from the manifest's hash" in _complaint(bundle)) != hash_fixed
        assert "do not add up" in _complaint(bundle)

    def test_a_base_model_of_another_shape_is_refused(self, bundle, tmp_path):
        """A base model of other shapes is refused with the parameter and both shapes."""
        wider = consortia.base_model("llama", intermediate_size=64)
        _edit_manifest(bundle, lambda m: m["base"].update(reference=consortia.save_base(wider, tmp_path / "wide")))

        with pytest.raises(BundleError, match=r"base model, parameter .*mlp.*\(.*64.*48"):
            verify_bundle(open_bundle(bundle))

    def test_an_update_of_another_shape_is_refused(self, bundle):
        """An update of another shape is refused with the client, the parameter and both shapes."""
        _rewrite(
            bundle / "clients/b/update.safetensors",
            lambda tensors: tensors.update({f"{UPDATED}.lora_A.weight": torch.ones(3, 47)}),
        )
        with pytest.raises(BundleError, match=rf"client 'b', parameter '{UPDATED}.weight'.*\(32, 47\).*\(32, 48\)"):
            verify_bundle(open_bundle(bundle))

    def test_an_unknown_parameter_is_refused(self, bundle):
        """An update of a parameter that the model lacks is refused by the parameter's name."""
        _rewrite(
            bundle / "clients/b/update.safetensors", lambda tensors: tensors.update({"model.nowhere": torch.ones(2)})
        )
        with pytest.raises(BundleError, match=r"model\.nowhere"):
            verify_bundle(open_bundle(bundle))


class TestWrite:
    """`write_bundle` replaces a bundle whole, or leaves the old one as it was."""

    def test_a_new_bundle_takes_the_place_of_the_old(self, tmp_path):
        """Nothing of the old bundle is left, nothing else lies beside the new one, and it verifies."""
        model = consortia.base_model("llama")
        updates = consortia.updates(model, "abc")
        consortia.write_consortium(tmp_path, model, updates)
        path = consortia.write_consortium(tmp_path, model, {"z": updates["a"]})

        assert ("z",) == open_bundle(path).client_ids
        assert ["z"] == [folder.name for folder in (path / "clients").iterdir()]
        assert {"base", "bundle"} == {found.name for found in tmp_path.iterdir()}
        assert () == verify_bundle(open_bundle(path)).problems

    @pytest.mark.parametrize("failure", ["shape", "not a number", "disk full"])
    def test_a_failure_leaves_the_old_bundle(self, good, bundle, failure):
        """An update that does not fit, is not finite or cannot be saved leaves every byte as it was, no scratch."""
        before = _contents(bundle.parent)
        fitting = consortia.updates(consortia.base_model("llama"))["a"]
        last, error = {
            "shape": (Update(dense={"model.norm.weight": torch.ones(31)}), BundleError),
            "not a number": (Update(dense={"model.norm.weight": torch.full((32,), torch.nan)}), BundleError),
            "disk full": (Update(_FullDisk(fitting.low_rank)), OSError),
        }[failure]
        members = [
            Member("a", "A", 1, 0.5, fitting, None),
            Member("b", "Bad", 1, 0.5, last, None),
        ]
        with pytest.raises(error):
            write_bundle(bundle, "test", f"path:{good / 'base'}", 1, members)

        assert before == _contents(bundle.parent)

    @pytest.mark.parametrize(("ids", "named"), [("aa", "'a'"), (["commons"], "commons"), (["../../../spilt"], "spilt")])
    def test_a_client_id_that_no_manifest_may_hold_is_refused(self, good, bundle, ids, named):
        """Ids that repeat, belong to the ledger or would leave the bundle are refused before anything is written."""
        before = _contents(bundle.parent)
        update = Update(dense={"model.norm.weight": torch.zeros(32)})
        members = [Member(client, "Name", 1, 0.5, update, None) for client in ids]
        with pytest.raises(BundleError, match=named):
            write_bundle(bundle, "test", f"path:{good / 'base'}", 1, members)

        assert before == _contents(bundle.parent)


class _FullDisk(dict):
    """Factors that can be merged but not saved."""

    def items(self):
        raise OSError(errno.ENOSPC, "no space left on device")


def _contents(folder: Path) -> dict[Path, str]:
    return {path: file_sha256(path, BundleError) if path.is_file() else "folder" for path in folder.rglob("*")}


def _flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


MODULES = ("one", "two", "three")  # each a linear layer of 4 outputs and 5 inputs


@st.composite
def _updates(draw):
    """An update of some modules: by factors of some rank, whole, or not at all."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    low_rank, dense = {}, {}
    for module in MODULES:
        kind = draw(st.sampled_from(["factors", "whole", "both", "none"]))
        if kind in {"factors", "both"}:
            rank = draw(st.integers(1, 3))
            A, B = torch.randn(rank, 5, generator=generator), torch.randn(4, rank, generator=generator)
            low_rank[module] = LowRank(A, B)
        if kind in {"whole", "both"}:
            dense[f"{module}.weight"] = torch.randn(4, 5, generator=generator)
    return Update(low_rank, dense)


def _whole(update: Update, module: str) -> torch.Tensor:
    low_rank = update.low_rank.get(module)
    whole = update.dense.get(f"{module}.weight", torch.zeros(4, 5))
    return whole if low_rank is None else whole + low_rank.dense()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 4), _updates()), min_size=1, max_size=4))
def test_weighted_sum_is_the_sum_of_the_whole_differences(terms):
    """Stacked factors are the sum of the multiplied-out differences, for every mixture of kinds, weights and gaps."""
    total = weighted_sum(terms)

    assert set().union(*(update.parameters() for _, update in terms)) == total.parameters()
    for parameter in total.parameters():
        expected = sum(weight * _whole(update, parameter.removesuffix(".weight")) for weight, update in terms)
        torch.testing.assert_close(expected, total.difference(parameter), rtol=1e-5, atol=1e-4)
