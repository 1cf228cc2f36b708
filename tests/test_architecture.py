"""The import tables of the house hold, between packages and within them, and each test proves that it looked."""

import ast
import sys
from collections.abc import Collection, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_MODULE = 55, 319  # to be lowered, never raised
STDLIB = set(sys.stdlib_module_names)
ALLOWED = {
    "attribution": {
        "attribution", "torch", "transformers", "tokenizers", "peft", "safetensors", "huggingface_hub",
        "numpy", "pydantic", "yaml", "jinja2", "matplotlib", "scipy", "cryptography",
    },
    "rewards": {
        "rewards", "sqlmodel", "sqlalchemy", "alembic", "pydantic", "pydantic_core", "yaml", "cryptography", "rfc8785",
        "iso4217",
    },
    "deployment": {
        "deployment", "attribution", "rewards", "ray", "fastapi", "starlette", "pydantic", "pydantic_core", "yaml",
        "typer", "rich", "httpx", "aiohttp", "prometheus_client", "torch", "jinja2", "markupsafe",
        "itsdangerous", "grafana_foundation_sdk", "sepaxml", "stdnum", "text_unidecode", "fastapi_offline",
    },
}  # fmt: skip


def libraries(source: str) -> set[str]:
    """The top-level names of all that `source` imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


def forbidden_imports(package: str, source: str) -> set[str]:
    """Top-level modules that `source` imports although `package` may not."""
    return libraries(source) - ALLOWED[package] - STDLIB


@pytest.mark.parametrize("package", ALLOWED)
def test_each_package_imports_only_what_the_table_allows(package):
    """`attribution` and `rewards` do not know each other, nobody imports `deployment`, nothing imports tests."""
    files = sorted((ROOT / package).rglob("*.py"))

    assert len(files) >= 10, f"looked at only {len(files)} files of {package}: the check has gone blind"
    offences = {str(file): forbidden_imports(package, file.read_text(encoding="utf-8")) for file in files}
    assert {file: names for file, names in offences.items() if names} == {}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("attribution", "from rewards import Ledger"),
        ("attribution", "import ray"),
        ("rewards", "import torch.nn"),
        ("rewards", "def f():\n    from attribution import attribute"),
        ("deployment", "from tests.attribution import consortia"),
    ],
)
def test_a_known_bad_sample_is_caught(package, source):
    """The guard would notice each kind of forbidden import, also inside a function."""
    assert forbidden_imports(package, source) != set()


# Rooms from the bottom up: each may import those above it in this list, and nothing below.
ROOMS = {
    "rewards": (
        "errors", "files", "money", "largest_remainder", "credit", "moments", "settlement", "signing", "store",
        "sampled_credit", "ledger", "keys", "log", "periods", "statements", "views", "audit", "backups",
    ),
    "attribution": (
        "errors", "files", "progress", "records", "base", "bundle", "rounds", "scoring", "decoding", "training",
        "importers", "model", "teacher_forcing", "attribute", "logprob_comparison", "tracing", "evaluation",
    ),
    "deployment": (
        "errors", "settings", "schemas", "spool", "http", "cluster", "members", "metrics", "health",
        "access", "books", "replica", "retention", "api", "gateway", "console", "app", "cli",
    ),
}  # fmt: skip
# What a room may know of the rest of its package, where that is less than all above it.
WALLS = {
    "rewards.settlement": {
        "rewards.errors", "rewards.files", "rewards.money", "rewards.largest_remainder", "rewards.credit",
        "rewards.moments",
    },
    "rewards.audit": {"rewards.errors", "rewards.signing", "rewards.store.database", "rewards.store.tables"},
    "deployment.books": {
        "deployment.errors", "deployment.schemas",
        "deployment.members.round_record",
        "rewards",
    },
    "deployment.console": {
        "deployment.errors", "deployment.schemas", "deployment.http", "deployment.access", "deployment.books",
        "deployment.retention", "deployment.gateway.service", "deployment.replica.messages", "rewards",
    },
}  # fmt: skip
WEB = {"fastapi", "starlette", "ray"}
SQL = {"sqlalchemy", "sqlmodel", "alembic", "psycopg", "sqlite3"}
PURE = {
    "rewards.settlement",
    "rewards.moments",
    "rewards.money",
    "rewards.largest_remainder",
    "rewards.credit",
    "rewards.sampled_credit.rule",
    "rewards.log.merkle",
    "rewards.log.leaves",
}
BOTH_DOMAINS = {
    "deployment.app.launch",
    "deployment.cli.commands",
    "deployment.cli.books.member",
    "deployment.cli.books.payouts",
    "deployment.cli.books.statement",
    "deployment.cli.doctor.bundles",
    "deployment.cli.doctor.findings",
    "deployment.cli.doctor.surroundings",
    "deployment.cli.models.calibration",
    "deployment.cli.models.consortium",
    "deployment.cli.models.importing",
    "deployment.cli.models.publish",
    "deployment.cli.models.recompute",
    "deployment.cli.output",
    "deployment.cli.service.demo",
    "deployment.cli.service.demo_folder",
    "deployment.health.watched_parts",
    "deployment.members.recorded_signatures",
    "deployment.members.flower",
    "deployment.members.own_updates",
    "deployment.members.signatures",
    "deployment.replica.bundles.loading",
    "deployment.replica.bundles.publish",
    "deployment.replica.bundles.publication_index",
    "deployment.replica.bundles.servable",
    "deployment.replica.booking.credit_recorder",
    "deployment.replica.booking.receipts",
    "deployment.replica.booking.credit_summary",
    "deployment.replica.scoring.recomputation",
    "deployment.replica.bundles.served_round",
}


@cache
def _modules() -> dict[str, Path]:
    """Every module of the three packages."""
    files = {file for package in ALLOWED for file in (ROOT / package).rglob("*.py")}
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files}
    return {names[file]: file for file in sorted(files)}


def imported_modules(source: str, known: Collection[str]) -> set[str]:
    """The modules of this project that `source` imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else str(node.module) for name in full}
    return names & set(known)


@cache
def _imports() -> dict[str, set[str]]:
    modules = _modules()
    assert len(modules) > 250, f"looked at only {len(modules)} modules: the check has gone blind"
    return {name: imported_modules(file.read_text(encoding="utf-8"), modules) for name, file in modules.items()}


def circles(imports: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """The circles among modules, each named by its members; none where imports go one way."""
    try:
        tuple(TopologicalSorter(imports).static_order())
    except CycleError as error:
        return [tuple(error.args[1])]
    return []


def climbs(imports: Mapping[str, Collection[str]]) -> set[tuple[str, str]]:
    """Imports of a room that stands higher than the one that imports, or that is in no list of rooms."""
    place = {
        f"{package}.{room}": height for package, rooms in ROOMS.items() for height, room in enumerate(rooms)
    }  # fmt: skip

    def room_of(module: str) -> str:
        return ".".join(module.split(".")[:2])

    return {
        (module, other)
        for module, others in imports.items()
        for other in others
        if module.split(".")[0] == other.split(".")[0] and "." in module and "." in other
        if room_of(module) != room_of(other) and not place[room_of(other)] < place[room_of(module)]
    }


def breaches(imports: Mapping[str, Collection[str]]) -> set[tuple[str, str]]:
    """Imports through a wall: of what a room may not know although it stands below."""

    def is_within(module: str, allowed: Collection[str]) -> bool:
        return any(module == name or module.startswith(f"{name}.") for name in allowed)

    return {
        (module, other)
        for wall, allowed in WALLS.items()
        for module, others in imports.items()
        if is_within(module, [wall])
        for other in others
        if not is_within(other, [*allowed, wall])
    }


def test_no_modules_import_each_other_in_a_circle():
    """Each module can be read, tested and loaded after those that it imports."""
    assert circles(_imports()) == []


def test_rooms_import_only_what_stands_below_them():
    """Within a package imports go one way: what is pure is at the bottom, what composes at the top."""
    assert climbs(_imports()) == set()


def test_walls_within_a_package_hold():
    """Settlement knows the words of money alone, the audit nothing of what wrote the books, a page no route's work."""
    assert breaches(_imports()) == set()


def test_pure_modules_know_no_database():
    """What settles, divides, hashes and tells time imports neither SQL nor a library that speaks to a server."""
    sources = {
        name: file.read_text(encoding="utf-8")
        for name, file in _modules().items()
        if any(name == pure or name.startswith(f"{pure}.") for pure in PURE)
    }

    assert len(sources) > len(PURE)
    assert {} == {name: sql for name, text in sources.items() if (sql := libraries(text) & SQL)}


def test_what_routes_and_pages_both_do_knows_no_request():
    """What stands in the books takes and returns plain values: no library of the web is imported there."""
    sources = {
        name: file.read_text(encoding="utf-8")
        for name, file in _modules().items()
        if name.startswith("deployment.books.")
    }

    assert len(sources) >= 7
    assert {} == {name: web for name, text in sources.items() if (web := libraries(text) & WEB)}


def test_only_named_modules_know_both_domains():
    """Few modules of `deployment` name attribution and rewards both, and the list of them has none too many."""
    imports = _imports()
    knows = {name: {other.split(".")[0] for other in others} for name, others in imports.items()}

    assert BOTH_DOMAINS == {name for name, domains in knows.items() if domains >= {"attribution", "rewards"}}


@pytest.mark.parametrize(
    ("check", "imports"),
    [
        (circles, {"rewards.a": ["rewards.b"], "rewards.b": ["rewards.a"]}),
        (climbs, {"rewards.settlement.settle": ["rewards.store.tables"]}),
        (climbs, {"deployment.books.periods": ["deployment.api.paging"]}),
        (climbs, {"attribution.base.layers": ["attribution.bundle.bundle"]}),
        (breaches, {"rewards.audit.tree": ["rewards.log.merkle"]}),
        (breaches, {"rewards.audit.replay": ["rewards.store.events"]}),
        (breaches, {"rewards.settlement.settle": ["rewards.store.tables"]}),
        (breaches, {"deployment.console.pages.periods": ["deployment.api.routes.periods"]}),
        (breaches, {"deployment.books.log": ["deployment.http.cursors"]}),
    ],
)
def test_a_known_bad_import_between_rooms_is_caught(check, imports):
    """Each check of rooms would notice the kind of import that it is for."""
    assert check(imports)


def test_functions_and_modules_fit_their_ceilings():
    """Most functions are under 25 lines and modules under 300; the longest of today are the most there may be."""
    functions, modules = {}, {}
    for name, file in _modules().items():
        source = file.read_text(encoding="utf-8")
        modules[name] = len(source.splitlines())
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[f"{name}.{node.name}"] = (node.end_lineno or 0) - node.lineno + 1

    assert len(functions) > 1500
    assert {} == {name: lines for name, lines in functions.items() if lines > MOST_LINES_OF_A_FUNCTION}
    assert {} == {name: lines for name, lines in modules.items() if lines > MOST_LINES_OF_A_MODULE}


_OFFERING = ("deployment.api", "deployment.cli", "deployment.settings", "rewards.periods")


def test_modules_speak_one_dialect():
    """What is public has no underscore, so no module lists it again; and no import is for types alone.

    Four packages offer names of their own, and list these.
    """
    spoken = {
        (name, word)
        for name, file in _modules().items()
        for word in ("__all__", "TYPE_CHECKING")
        if word in file.read_text(encoding="utf-8")
    }

    assert spoken == {(name, "__all__") for name in _OFFERING}


def test_top_level_folders_are_the_ones_of_the_design():
    """A newcomer finds the three packages, tests and configs, and no other code beside them."""
    folders = {file.relative_to(ROOT).parts[0] for file in ROOT.rglob("*.py")}

    assert folders - {".venv", "var", "build"} == {"attribution", "rewards", "deployment", "tests"}
