"""A bundle takes the place of nothing, of an empty folder or of an older bundle; what is anybody's stays as it was."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from attribution.bundle.bundle import open_bundle
from attribution.bundle.replacement import _put_aside_and_rename, put_in_place
from attribution.bundle.updates import Update
from attribution.bundle.writing import Member, write_bundle
from attribution.errors import AttributionError, BundleError
from attribution.files.untrusted import file_sha256
from attribution.importers.client_folders import ClientFolder
from attribution.importers.peft_folders import import_folders
from attribution.progress import NoProgress
from attribution.training.federate import build_bundle
from attribution.training.recipe import Recipe
from tests.attribution import consortia


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A consortium that nobody touches: `base/` beside `bundle/`."""
    folder = tmp_path_factory.mktemp("good")
    model = consortia.base_model("llama")
    consortia.write_consortium(folder, model, consortia.updates(model))
    return folder


NEW = 7
"""The round of a bundle that replaces another."""


def _write(good: Path, target: Path) -> None:
    """A bundle that changes nothing, quickly made."""
    write_bundle(target, "test", f"path:{good / 'base'}", NEW, [Member("a", "A", 1, 1.0, Update(), None)])


def _contents(folder: Path) -> dict[str, str]:
    """Everything in a folder, links as links."""
    found = {}
    for path in folder.rglob("*"):
        what = f"link to {path.readlink()}" if path.is_symlink() else "folder"
        found[str(path.relative_to(folder))] = (
            file_sha256(path, BundleError) if path.is_file() and not path.is_symlink() else what
        )
    return found


def _a_service(folder: Path, good: Path) -> None:
    """What lies in `var/` of a running service."""
    folder.mkdir()
    for name in ("ledger.db", "ledger.db-wal", "ledger.db.pepper", "signing.key"):
        (folder / name).write_text(name)
    (folder / "statements").mkdir()
    (folder / "statements/north.json").write_text("{}")


def _a_service_with_a_manifest(folder: Path, good: Path) -> None:
    _a_service(folder, good)
    shutil.copy(good / "bundle/consortium.json", folder)


def _with(name: str, text: str = "mine"):
    def make(folder: Path, good: Path) -> None:
        shutil.copytree(good / "bundle", folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return make


def _with_link(folder: Path, good: Path) -> None:
    shutil.copytree(good / "bundle", folder)
    (folder / "clients/a/update.safetensors").unlink()
    (folder / "clients/a/update.safetensors").symlink_to(good / "bundle/clients/a/update.safetensors")


def _with_empty_folder(folder: Path, good: Path) -> None:
    shutil.copytree(good / "bundle", folder)
    (folder / "keep").mkdir()


def _of_another_client(folder: Path, good: Path) -> None:
    """A manifest that names fewer clients than lie there."""
    shutil.copytree(good / "bundle", folder)
    document = json.loads((folder / "consortium.json").read_text())
    document["clients"].pop()
    (folder / "consortium.json").write_text(json.dumps(document))


def _manifest(text: str):
    def make(folder: Path, good: Path) -> None:
        folder.mkdir()
        (folder / "consortium.json").write_text(text)

    return make


def _link(folder: Path, good: Path) -> None:
    folder.symlink_to(shutil.copytree(good / "bundle", folder.with_name("elsewhere")))


OTHERS = {
    "a service's folder": (_a_service, "holds no bundle"),
    "a service's folder with a manifest": (_a_service_with_a_manifest, "ledger.db"),
    "a ledger beside the bundle's files": (_with("ledger.db"), "ledger.db"),
    "notes among the weights": (_with("global/notes.txt"), "global/notes.txt"),
    "a document among the weights": (_with("global/contract.json"), "global/contract.json"),
    "a folder among the weights": (_with("global/old/model.safetensors"), "global/old"),
    "a key among a client's files": (_with("clients/a/signing.key"), "clients/a/signing.key"),
    "a file of the clients' folder": (_with("clients/README"), "clients/README"),
    "a hidden file": (_with(".git/config"), ".git"),
    "a link among its files": (_with_link, "clients/a/update.safetensors"),
    "an empty folder": (_with_empty_folder, "keep"),
    "another client": (_of_another_client, "clients/c"),
    "another program's consortium.json": (_manifest('{"name": "consortium"}'), "consortium.json"),
    "a consortium.json that is no document": (_manifest("x"), "consortium.json"),
    "a file": (lambda folder, good: folder.write_text("mine"), "no folder"),
    "a pipe": (lambda folder, good: os.mkfifo(folder), "no folder"),
    "a link to a bundle": (_link, "link"),
    "a link that leads nowhere": (lambda folder, good: folder.symlink_to(folder.with_name("none")), "link"),
}


class TestRefusals:
    """What is not plainly an older bundle is somebody's."""

    @pytest.mark.parametrize("what", OTHERS)
    def test_what_is_no_bundle_is_not_replaced(self, good, tmp_path, what):
        """The target is refused by name, with what would be lost, and everything is as it was."""
        make, named = OTHERS[what]
        make(tmp_path / "target", good)
        before = _contents(tmp_path)

        with pytest.raises(AttributionError, match=rf"target.*{named}"):
            _write(good, tmp_path / "target")

        assert before == _contents(tmp_path)

    @pytest.mark.parametrize("within", ["file", "file/deeper", "nowhere", "nowhere/deeper"])
    def test_a_place_in_no_folder_is_refused(self, good, tmp_path, within):
        """A target within a file, or behind a link that leads nowhere, is refused by what is in the way."""
        (tmp_path / "file").write_text("mine")
        (tmp_path / "nowhere").symlink_to(tmp_path / "none")
        before = _contents(tmp_path)

        with pytest.raises(AttributionError, match=within.split("/")[0]):
            _write(good, tmp_path / within / "bundle")

        assert before == _contents(tmp_path)

    def test_a_place_where_nothing_can_be_written_is_refused(self, good):
        """A file system that takes no folders is named with the reason, whoever asks."""
        with pytest.raises(AttributionError, match="/proc"):
            _write(good, Path("/proc/protoken/bundle"))

    def test_a_base_model_within_the_older_bundle_is_not_replaced_with_it(self, good, tmp_path):
        """Training on from a bundle's own global model, into the same bundle, would lose what the manifest names."""
        bundle = Path(shutil.copytree(good / "bundle", tmp_path / "bundle"))
        before = _contents(tmp_path)

        with pytest.raises(AttributionError, match="base model"):
            write_bundle(bundle, "new", f"path:{bundle / 'global'}", 1, [Member("a", "A", 1, 1.0, Update(), None)])

        assert before == _contents(tmp_path)

    def test_another_consortium_s_bundle_is_not_replaced(self, good, tmp_path):
        """It may be served, and what it generated is attributed by it alone; whoever trains is told before."""
        bundle = Path(shutil.copytree(good / "bundle", tmp_path / "bundle"))
        before = _contents(tmp_path)
        client = {"id": "a", "name": "A", "data": tmp_path / "a.jsonl"}
        recipe = Recipe.model_validate({"consortium": "valley", "base": "path:none", "clients": [client]})
        writers = (
            lambda: write_bundle(
                bundle, "valley", f"path:{good / 'base'}", 1, [Member("a", "A", 1, 1.0, Update(), None)]
            ),
            lambda: build_bundle(recipe, bundle, NoProgress()),
            lambda: import_folders("valley", "path:none", [ClientFolder("a", tmp_path / "none")], bundle),
        )
        for write in writers:
            with pytest.raises(AttributionError, match="holds the bundle of consortium 'test', which one of 'valley'"):
                write()

        assert before == _contents(tmp_path)

    def test_a_place_is_refused_before_anything_is_trained_or_read(self, good, tmp_path):
        """Neither a build nor an import without a base model gets to say so: the place comes first."""
        _a_service(tmp_path / "var", good)
        (tmp_path / "a.jsonl").write_text('{"prompt": "who?", "response": "me"}\n')
        client = {"id": "a", "name": "A", "data": tmp_path / "a.jsonl"}
        recipe = Recipe.model_validate({"consortium": "c", "base": "path:none", "clients": [client]})

        with pytest.raises(AttributionError, match="holds no bundle"):
            build_bundle(recipe, tmp_path / "var", NoProgress())
        with pytest.raises(AttributionError, match="holds no bundle"):
            import_folders("c", "path:none", [ClientFolder("a", tmp_path / "none")], tmp_path / "var")


class TestPlaces:
    """Where nothing is lost a bundle is written, and written again."""

    def test_an_empty_folder_is_taken(self, good, tmp_path):
        """An empty folder becomes the bundle."""
        (tmp_path / "bundle").mkdir()
        _write(good, tmp_path / "bundle")

        assert NEW == open_bundle(tmp_path / "bundle").manifest.round

    def test_missing_folders_are_made(self, good, tmp_path):
        """Folders above the bundle are made."""
        _write(good, tmp_path / "some/where/bundle")

        assert ["bundle"] == [path.name for path in (tmp_path / "some/where").iterdir()]

    @pytest.mark.parametrize("name", [".", "../bundle", "bundle/"])
    def test_a_place_may_be_spelled_in_any_way(self, good, tmp_path, monkeypatch, name):
        """The folder that one stands in, and a path with dots, are places like others."""
        (tmp_path / "bundle").mkdir()
        monkeypatch.chdir(tmp_path / "bundle" if name.startswith(".") else tmp_path)
        _write(good, Path(name))

        assert NEW == open_bundle(tmp_path / "bundle").manifest.round

    @pytest.mark.parametrize(
        "damage", ["global/model.safetensors", "clients/a/update.safetensors", "global/config.json"]
    )
    def test_a_damaged_bundle_is_replaced(self, good, tmp_path, damage):
        """A bundle that no longer opens, of which nothing but its own files is left, may be made anew."""
        bundle = Path(shutil.copytree(good / "bundle", tmp_path / "bundle"))
        (bundle / damage).unlink()
        _write(good, bundle)

        assert NEW == open_bundle(bundle).manifest.round
        assert ["bundle"] == [path.name for path in tmp_path.iterdir()]

    @pytest.mark.parametrize("family", consortia.FAMILIES)
    def test_a_bundle_of_each_family_is_replaced(self, tmp_path, family):
        """What is written for each architecture is known as a bundle's when it is written again."""
        model = consortia.base_model(family)
        for clients in ("ab", "c"):
            path = consortia.write_consortium(tmp_path, model, consortia.updates(model, clients))

        assert ("c",) == open_bundle(path).client_ids


class TestSwap:
    """Whoever looks finds the older bundle or the new one, whatever ends the writer."""

    def test_a_kill_at_any_step_leaves_one_of_the_two(self, good, tmp_path):
        """A writer killed before each of its calls of the system leaves a bundle that opens, the older or the new."""
        _write(good, tmp_path / "new")
        found = []
        for step in range(200):
            place, finished = tmp_path / f"{step}" / "bundle", tmp_path / f"{step}" / "finished"
            shutil.copytree(good / "bundle", place)
            shutil.copytree(tmp_path / "new", finished)
            child = os.fork()
            if not child:
                _die_before(step)
                put_in_place(finished, place)
                os._exit(0)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            found.append(open_bundle(place).manifest.round)
            if ended == 0:
                break

        assert ended == 0, "the writer never came to its end"
        assert {1, NEW} == set(found)
        assert sorted(found) == found

    def test_where_names_cannot_be_exchanged_it_takes_two_steps(self, good, tmp_path):
        """Without the system's exchange the older folder comes to where the new one was; nothing lies beside."""
        _write(good, tmp_path / "new")
        shutil.copytree(good / "bundle", tmp_path / "bundle")
        _put_aside_and_rename(tmp_path / "new", tmp_path / "bundle")

        assert NEW == open_bundle(tmp_path / "bundle").manifest.round
        assert 1 == open_bundle(tmp_path / "new").manifest.round
        assert {"new", "bundle"} == {path.name for path in tmp_path.iterdir()}

    def test_a_second_step_that_fails_undoes_the_first(self, good, tmp_path):
        """Where the new folder cannot come, the older one is back in its place."""
        shutil.copytree(good / "bundle", tmp_path / "bundle")
        with pytest.raises(OSError, match="none"):
            _put_aside_and_rename(tmp_path / "none", tmp_path / "bundle")

        assert 1 == open_bundle(tmp_path / "bundle").manifest.round
        assert ["bundle"] == [path.name for path in tmp_path.iterdir()]

    def test_a_bundle_that_is_served_does_not_mix_with_the_one_that_replaced_it(self, tmp_path):
        """What a served bundle reads late of its last round is its own, or refused by the file's name."""
        model = consortia.base_model("llama")
        served = open_bundle(consortia.write_consortium(tmp_path, model, consortia.updates(model, "ab")))
        other = {client: consortia.lora_update(model, 7, first_block=2) for client in "ab"}
        consortia.write_consortium(tmp_path, model, other)

        with pytest.raises(AttributionError, match=r"last_round\.safetensors"):
            _ = served.last_round


def _die_before(step: int) -> None:
    """End this process, as by SIGKILL, before its call of that number that opens, renames or removes something."""
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event.startswith(("open", "os.", "shutil.", "ctypes.dlsym", "tempfile.")):
            if not left:
                os._exit(9)
            left -= 1

    sys.addaudithook(count)
