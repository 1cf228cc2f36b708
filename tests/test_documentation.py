"""The README is under test: its tree, its commands and its settings are those of the code."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from attribution.recipe import load_recipe
from deployment.cli import app
from deployment.settings import Settings
from rewards import Policy, load_policy
from rewards.policy import policy_schema

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_stands_in_the_tree():
    """The folder tree has a line for each module of the three packages, and none for a module that is gone."""
    tree = README.split("## Where things are")[1].split("```")[1]
    shown, package = set(), ""
    for line in tree.splitlines():
        name = line.split()[0] if line.split() else ""
        if line and not line.startswith(" "):
            package = name
        elif name.endswith(".py") and package in {"attribution/", "rewards/", "deployment/"}:
            shown.add(package + name)
    there = {
        str(file.relative_to(ROOT))
        for package in ("attribution", "rewards", "deployment")
        for file in (ROOT / package).rglob("*.py")
        if file.name != "__init__.py"
    }

    assert len(there) > 40
    assert there == shown


def test_every_command_of_the_readme_exists():
    """Each `protoken …` line of the README names a command, and options, that the command line knows."""
    command = typer.main.get_command(app)
    lines = [line for line in README.splitlines() if re.match(r"(protoken|KEY=.*protoken) ", line)]

    assert len(lines) >= 10
    for line in lines:
        words = line.split("protoken ", 1)[1].split("#")[0].rstrip(")").split()
        found = command
        while hasattr(found, "commands"):
            assert words[0] in found.commands, f"README: {line}"
            found = found.commands[words.pop(0)]
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, f"README: {line}"


def test_every_make_target_of_the_readme_exists():
    """Each `make …` that the README names is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for target in set(re.findall(r"`?make ([a-z-]+)", README)) - {"sure"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_setting_is_explained():
    """`configs/serve.yaml` holds every setting of the service, commented where it stands at its default, and loads."""
    text = (ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:# )?([a-z_]+):", text, flags=re.MULTILINE))

    assert set(Settings.model_fields) == named
    assert set(yaml.safe_load(text)) <= named


def test_every_field_of_a_policy_is_explained():
    """The example policy holds every field, commented out where it is not wanted, and nothing else."""
    text = (ROOT / "configs" / "policy.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:# )?([a-z_]+): \S", text, flags=re.MULTILINE))

    assert set(Policy.model_fields) == named


def test_the_schema_of_policies_is_the_code_s():
    """`configs/policy.schema.json`, which editors read, is what `policy_schema` returns."""
    written = json.loads((ROOT / "configs" / "policy.schema.json").read_text(encoding="utf-8"))

    assert policy_schema() == written


def test_the_shipped_configuration_is_valid():
    """The demo's recipe, its questions and the example policy are accepted as they are."""
    recipe = load_recipe(ROOT / "configs" / "demo" / "consortium.yaml")
    questions = [json.loads(line) for line in (ROOT / "configs" / "demo" / "questions.jsonl").read_text().splitlines()]

    assert load_policy(ROOT / "configs" / "policy.yaml").pool > 0
    assert {question["client"] for question in questions} == {c.id for c in recipe.clients if not c.free_rider}


def test_the_questions_are_not_in_the_training_data():
    """What the demo asks is worded otherwise than what the clients trained on."""
    folder = ROOT / "configs" / "demo"
    trained = {
        json.loads(line)["prompt"]
        for name in ("clinic", "bank", "software")
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
    }
    asked = {json.loads(line)["prompt"] for line in (folder / "questions.jsonl").read_text().splitlines()}

    assert len(asked) == 36
    assert trained & asked == set()


def test_nothing_tracked_names_a_placeholder():
    """No file of the project holds a mark of unfinished work."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|@[A-Z]{4,}@")
    marked = [
        name
        for name in tracked
        if name.endswith((".py", ".md", ".yaml", ".toml")) and name != "tests/test_documentation.py"
        if marks.search((ROOT / name).read_text(encoding="utf-8"))
    ]

    assert marked == []
