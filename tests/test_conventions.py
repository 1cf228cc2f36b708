"""What editors, hooks and containers are told is what the project is: files, commands and lengths that exist."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.wanted import tracked_files

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXTS = {".py", ".md", ".yaml", ".yml", ".toml", ".html", ".css", ".js", ".jsonl", ".txt", ""}


def _told_to_editors() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser()
    parser.read_string("[before]\n" + (ROOT / ".editorconfig").read_text(encoding="utf-8"))
    return {name: dict(parser[name]) for name in parser.sections()}


def test_editors_and_ruff_agree_on_the_length_of_a_line():
    """An editor breaks Python's lines where ruff does."""
    assert str(PROJECT["tool"]["ruff"]["line-length"]) == _told_to_editors()["*.py"]["max_line_length"]


def test_every_text_is_as_editors_are_told():
    """No file ends without its newline, and none has blanks before one, carriage returns, or tabs but in the Makefile.

    A page of Markdown may break a line by two blanks; fixtures are what an older version wrote.
    """
    wrong = []
    files = [file for file in tracked_files() if file.suffix in TEXTS and "fixtures" not in file.parts]
    for file in files:
        text = file.read_bytes().decode("utf-8")
        if text and not text.endswith("\n"):
            wrong.append(f"{file}: its last line has no end")
        if "\r" in text or re.search(r"[ \t]$", text, flags=re.MULTILINE):
            wrong.append(f"{file}: blanks or carriage returns at the end of a line")
        if file.name != "Makefile" and re.search(r"^\t", text, flags=re.MULTILINE):
            wrong.append(f"{file}: a line begins with a tab")

    assert len(files) > 400
    assert [] == wrong


def test_hooks_run_the_tools_of_the_project():
    """Each hook runs a tool that `make setup` installs, from no registry, and the three are what `make lint` runs."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    development = {re.split("[<>=]", each)[0] for each in PROJECT["project"]["optional-dependencies"]["dev"]}
    linted = re.findall(r"^\t\$\(BIN\)/(.+)$", MAKEFILE.split("\nlint:")[1].split("\n\n")[0], flags=re.MULTILINE)

    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    assert {".venv/bin"} == {str(Path(words[0]).parent) for words in entries}
    assert {Path(words[0]).name for words in entries} <= development
    assert {line.removesuffix(" --check") for line in linted} == {
        " ".join(words).removeprefix(".venv/bin/").removesuffix(" --force-exclude") for words in entries
    }


def test_the_dockerfile_copies_and_makes_what_there_is():
    """What it copies exists and may be sent to the builder, and each target of make that it runs is one."""
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.MULTILINE) for name in line.split()]
    sent = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE)
    targets = re.findall(r"^(?:RUN|CMD) .*?\bmake\W+([a-z-]+)", DOCKERFILE, flags=re.MULTILINE)

    assert [] == [name for name in copied if not (ROOT / name).exists()]
    assert sorted(sent) == sorted(copied)
    assert ["setup", "serve"] == targets
    assert all(re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE) for target in targets)


def test_the_container_is_built_of_all_that_is_installed():
    """The packages of the project, the files that its metadata names and what the targets read are copied."""
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.MULTILINE) for name in line.split()}
    packages = {each.rstrip("*") for each in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    described = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}

    assert packages | described | {"pyproject.toml", "constraints.txt", "Makefile", "configs"} <= copied


def test_the_service_in_the_container_is_not_root():
    """The last user before the command is one that was made, and what was installed is not its own."""
    before, command = DOCKERFILE.split("\nCMD ")
    users = re.findall(r"^USER (\S+)$", before, flags=re.MULTILINE)

    assert "make" in command
    assert ["protoken"] == users
    assert "useradd --create-home protoken" in before
    assert "--chown" not in before


def test_the_container_is_of_the_python_that_the_project_asks_for():
    """The image's Python is the oldest that the project takes, on which everything is tested."""
    (version,) = re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, flags=re.MULTILINE)

    assert PROJECT["project"]["requires-python"] == f">={version}"


PAGES = ("CONTRIBUTING.md", "DECISIONS.md", "SECURITY.md")
PATH = re.compile(r"`((?:attribution|rewards|deployment|configs|tests)/[\w./-]+|[A-Z]\w+\.md|\w+\.(?:toml|txt))`")


def _page(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("page", PAGES)
def test_files_that_people_are_sent_to_are_there(page: str):
    """Every file and folder that a recipe, a decision or a promise names exists."""
    named = PATH.findall(_page(page))

    assert named
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_names_that_recipes_send_to_are_in_their_files():
    """Where a recipe says `NAME` of or in a file, that file says the name too."""
    kinds = "(async )?def |class "
    sent = {
        pair
        for page in PAGES
        for pair in re.findall(
            r"`([A-Za-z_]+)` (?:of|in) `((?:attribution|rewards|deployment|tests)/[\w/]+\.py)`", _page(page)
        )
    }

    assert {"SUPPORTED", "RULES", "base_model", "VERSION"} <= {name for name, _file in sent}
    assert [] == [
        (name, file)
        for name, file in sent
        if not re.search(rf"^({kinds})?{name}\b", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    ]


def test_every_decision_says_what_would_change_it():
    """Each has its reason, what was weighed, what would change it and where it is; numbers have no gap."""
    text = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
    decisions = text.split("\n## ")[1:]
    told = ["Why", "Weighed", "Would change it", "Where"]

    assert len(decisions) >= 10
    assert [f"{number}." for number in range(1, len(decisions) + 1)] == [each.split(" ")[0] for each in decisions]
    assert all(told == re.findall(r"^- \*\*(.+?)\.\*\*", each, flags=re.MULTILINE) for each in decisions)


def test_forms_for_issues_ask_under_names_of_their_own():
    """Each form is one that the forge takes: it says what it is for, and no two questions of it share a name."""
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml"))

    assert len(forms) >= 2
    for file in forms:
        form = yaml.safe_load(file.read_text(encoding="utf-8"))
        names = [question["id"] for question in form["body"]]
        assert {"name", "description", "body"} <= set(form)
        assert sorted(set(names)) == sorted(names)
        assert all(isinstance(each, str) for one in form["body"] for each in one["attributes"].get("options", ()))
