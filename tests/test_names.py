"""Functions are verbs or nouns, and what a variable holds has a noun: no participle stands alone as a name."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("attribution", "rewards", "deployment")
NOUNS = {"opening", "standing", "listing", "sampling", "setting"}
VERBS = {"bring", "embed", "feed", "need", "ping", "seed", "speed"}
IRREGULAR = {
    "asked", "begun", "built", "done", "drawn", "fallen", "found", "given", "gone", "grown", "held", "hidden", "kept",
    "known", "left", "lost", "made", "paid", "seen", "sent", "shown", "spelt", "taken", "told", "written",
}  # fmt: skip
NO_NOUNS = {"asked", "found", "there"}
"""No variable and no parameter is called so: what is found, asked for or there has a name of its own."""


def is_participle(name: str) -> bool:
    """Whether a name is one participle and nothing else; what follows it, as in `closed_periods`, makes a noun."""
    word = name.strip("_")
    is_regular = re.fullmatch("[a-z]+(ed|ing)", word) is not None and word not in NOUNS | VERBS
    return is_regular or word in IRREGULAR


def faults(source: str) -> set[str]:
    """Names in a module that say not what they are."""
    wrong = set()
    nodes = [*ast.walk(ast.parse(source))]
    fields = {
        id(node.target)
        for each in nodes
        if isinstance(each, ast.ClassDef)
        for node in each.body
        if isinstance(node, ast.AnnAssign)
    }
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_participle(node.name):
            wrong.add(node.name)
        elif isinstance(node, ast.arg) and node.arg in NO_NOUNS:
            wrong.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in NO_NOUNS:
            wrong.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NO_NOUNS:
            wrong |= set() if id(node) in fields else {node.id}  # a field may be a name on the wire
    return wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_and_variables_say_what_they_are(package):
    """In the three packages; of tests nothing is said."""
    files = sorted((ROOT / package).rglob("*.py"))
    wrong = {str(file.relative_to(ROOT)): faults(file.read_text(encoding="utf-8")) for file in files}

    assert len(files) >= 10
    assert {} == {file: names for file, names in wrong.items() if names}


@pytest.mark.parametrize(
    "source",
    [
        "def _closed(): ...",
        "class A:\n    def told(self): ...",
        "async def watching(): ...",
        "def f(found): ...",
        "def f():\n    there = 1",
        "found = 1",
        "def f(self):\n    self.asked = 1",
        "def f():\n    return [asked for asked in ()]",
    ],
)
def test_a_known_bad_name_is_caught(source):
    """A participle alone, wherever the function is, and each of the words that are no nouns."""
    assert faults(source) != set()


@pytest.mark.parametrize("name", ["closed_periods", "_find_closed", "opening", "feed", "settle", "key"])
def test_a_good_name_passes(name):
    """Verbs, nouns, and nouns that a participle describes."""
    assert not is_participle(name)
