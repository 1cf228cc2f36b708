"""Which role may call what: methods and paths, and whose figures a key sees. `OPEN_ROUTES` are everybody's.

Knows roles and paths, and no key's secret. What the roles are, `rewards.keys.rules` says.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from rewards.keys.rules import Key

OPEN_ROUTES: Final = frozenset(
    ("GET", path)
    for path in (
        "/",
        "/health",
        "/openapi.json",
        "/docs",
        "/docs/static/start.js",
        "/docs/static/swagger-ui-bundle.js",
        "/docs/static/swagger-ui.css",
    )
)
"""What everybody may call, with no key: health, and what the service says of itself, which is in its source too."""

READERS: Final = ("operator", "auditor", "admin")
"""The roles that see everybody's figures."""

# The first line that fits decides. In a path, * is one name, /** is the path itself and everything below it, and
# {a|b} is one of these names. A path that no line fits does not exist, with whatever key.
RULES: Final = (
    # methods           path                                                         roles that may
    ("ANY",             "/v1/**",                                                    ("application",)),
    ("GET POST DELETE", "/api/v1/keys/**",                                           ("admin",)),
    ("GET",             "/api/v1/{consortium|clients|shares|credit|entries}/**",     ("member", *READERS)),
    ("GET",             "/api/v1/{periods|statements|log|rounds}/**",                ("member", *READERS)),
    ("GET",             "/api/v1/**",                                                READERS),
    ("POST",            "/api/v1/periods/*/preview",                                 READERS),  # changes nothing
    ("POST",            "/api/v1/{periods|holds}/**",                                ("operator",)),
    ("POST",            "/api/v1/receipts/*/reversal",                               ("operator",)),
    ("POST",            "/api/v1/log/seal",                                          ("operator",)),
    ("ANY",             "/api/v1/**",                                                ()),
)  # fmt: skip

_Rule = tuple[str, str, tuple[str, ...]]


def _pattern(path: str) -> re.Pattern[str]:
    meaning = {"/**": "(/.*)?", "*": "[^/]+", "{": "(", "}": ")", "|": "|"}
    parts = re.split(r"(/\*\*|\*|[{}|])", path)
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts), re.DOTALL)


class Rule(NamedTuple):
    """A rule as it is looked for: `route` is the path as the rule has it."""

    methods: list[str]
    pattern: re.Pattern[str]
    roles: tuple[str, ...]
    route: str


def compile_rules(rules: Iterable[_Rule]) -> tuple[Rule, ...]:
    """Rules as they are looked through."""
    return tuple(Rule(methods.split(), _pattern(path), roles, path) for methods, path, roles in rules)


_PATTERNS: Final = compile_rules(RULES)


def roles_for(method: str, path: str) -> tuple[str, ...] | None:
    """The roles that may call `path` with `method`, perhaps none; None where there is no such part of the service."""
    rule = rule_of(method, path)
    return None if rule is None else rule.roles


def rule_of(method: str, path: str) -> Rule | None:
    """The rule of the service that fits a call; None where there is no such part of it."""
    return rule_for(_PATTERNS, method, path)


def rule_for(rules: Iterable[Rule], method: str, path: str) -> Rule | None:
    """The first of some rules that fits a call; None where none does."""
    for rule in rules:
        if (method in rule.methods or rule.methods == ["ANY"]) and rule.pattern.fullmatch(path):
            return rule
    return None


def visible_to(key: Key) -> str | None:
    """The one client whose figures a key may see; None for all of them. An application's key sees none, and fails."""
    assert key.role in ("member", *READERS), f"a key of role {key.role!r} sees no figures at all"
    assert (key.role == "member") == (key.client is not None), "exactly a member's key has a client"
    return key.client
