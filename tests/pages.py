"""The pages of the project, taken apart for the tests that hold them to the code: commands, links, names and numbers.

A page is a Markdown file; all are but the changelog, which tells of what is gone. Knows how pages are written, and
nothing of what they say.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from deployment.cli.on_demand import load_command

__all__ = ["ROOT", "Page", "anchors", "calls", "code_words", "faults_of_call", "is_defined", "pages"]

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
SHELL = {"", "sh", "bash", "console"}


def anchors(text: str) -> set[str]:
    """The names by which links lead to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        path: where it lies, from the root of the project.
        text: the whole of it.
    """

    path: str
    text: str

    def __str__(self) -> str:
        return self.path

    @cached_property
    def words(self) -> str:
        """The text with every line break as a space, as its sentences are read."""
        return " ".join(self.text.split())

    @cached_property
    def lines(self) -> list[str]:
        """Every line of a shell in it, those that end in a backslash with the next one."""
        blocks = [code for language, code in FENCE.findall(self.text) if language in SHELL]
        return [line for code in blocks for line in code.replace("\\\n", " ").splitlines()]

    @cached_property
    def spans(self) -> list[str]:
        """What stands between backticks within sentences."""
        return [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", self.text))]

    @cached_property
    def links(self) -> list[str]:
        """Where its links and pictures lead within the project."""
        found = [first or second for first, second in LINK.findall(FENCE.sub("", self.text))]
        return [link for link in found if "://" not in link and not link.startswith("mailto:")]

    def leads_to(self, link: str) -> Path:
        """The file or folder that a link of this page means."""
        name = link.partition("#")[0]
        return ROOT / self.path if not name else (ROOT / self.path).parent / name


def pages() -> list[Page]:
    """Every page of the project but the changelog."""
    rooms = ("attribution", "rewards", "deployment", "configs", "tests", ".github")
    files = [*ROOT.glob("*.md"), *(file for room in rooms for file in (ROOT / room).rglob("*.md"))]
    return [
        Page(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
        for file in sorted(files)
        if file.name != "CHANGELOG.md"
    ]


def calls(line: str) -> Iterator[list[str]]:
    """The words behind each `protoken` of a line, up to where the shell ends the command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] | None = None
    for word in lexer:
        if re.fullmatch(r"(\S*/)?protoken", word):
            words = []
        elif words is not None and re.fullmatch(r"[();<>|&]+", word):
            yield words
            words = None
        elif words is not None:
            words.append(word)
    if words is not None:
        yield words


def faults_of_call(command: Any, words: list[str], *, whole: bool) -> Iterator[str]:
    """What is wrong with the words of a call.

    Args:
        command: the command line.
        words: what stands behind its name.
        whole: whether it is typed as it stands, with all that it needs, and does not only name a command.
    """
    words = list(words)
    while hasattr(command, "get_command"):
        if not words:
            return
        known = load_command(command.get_command(None, words[0]))
        if known is None:
            yield f"there is no {words[0]}"
            return
        command, words = known, words[1:]
    options = {name: each for each in command.params for name in each.opts if name.startswith("--")}
    given, rest = set(), []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            rest.append(word)
            continue
        option = options.get(word)
        if option is None and word != "--help":
            yield f"there is no option {word}"
        elif option is not None:
            given.add(option.name)
            del words[: 0 if option.is_flag else 1]
    if whole or rest:
        yield from _missing(command, given, rest)


def _missing(command: Any, given: set[str], rest: list[str]) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    least = sum(each.required for each in arguments)
    most = float("inf") if any(each.nargs != 1 for each in arguments) else len(arguments)
    if not least <= len(rest) <= most:
        yield f"takes {least} to {most} words, not {rest}"
    for each in command.params:
        if each.param_type_name == "option" and each.required and each.name not in given:
            yield f"lacks {each.opts[0]}"


@cache
def code_words() -> frozenset[str]:
    """Every word that the project's own files have, but its pages."""
    rooms = ("attribution", "rewards", "deployment", "configs", "tests")
    files = [file for room in rooms for file in (ROOT / room).rglob("*") if file.suffix in {".py", ".yaml", ".yml"}]
    return frozenset(word for file in files for word in re.findall(r"\w+", file.read_text(encoding="utf-8")))


def is_defined(name: str) -> bool:
    """Whether a dotted name is a package, a module, or what one has in it."""
    place, parts = ROOT, name.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if not parts:
        return True
    file = place / f"{parts[0]}.py"
    rest = parts[1:] if file.is_file() else parts
    text = (file if file.is_file() else place / "__init__.py").read_text(encoding="utf-8")
    return all(re.search(rf"\b{each}\b", text) for each in rest)
