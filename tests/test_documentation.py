"""Pages, tables of contents and example files are under test: what they say of the code is so."""

import ast
import importlib
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
import typer
import yaml

from attribution.training.recipe import load_recipe
from deployment.access import key_cache
from deployment.access.audit_trail import MINUTE_S
from deployment.api import routes as api_routes
from deployment.books.accounts import load_accounts
from deployment.cli.books import keys
from deployment.cli.commands import app
from deployment.cli.on_demand import load_command
from deployment.console import pages as console_pages
from deployment.console.figures import snapshot as figures
from deployment.console.sessions import LONGEST_S
from deployment.gateway import routes
from deployment.gateway.async_claims import CLAIM_PATIENCE_S
from deployment.gateway.keep_alive import ANSWER_TIMEOUT_S, SILENCE_S
from deployment.metrics.catalogue import MOST_CLIENTS
from deployment.replica.active_request import PROGRESS_TOKENS
from deployment.replica.booking.booking_queue import BOOKING_PATIENCE_S
from deployment.replica.booking.recovery import ADOPTION_INTERVAL_S
from deployment.replica.bundles.publication_index import POLL_S
from deployment.replica.bundles.rollout import PATIENCE_S
from deployment.settings import Settings
from rewards.keys.rules import ROLES
from rewards.settlement.policy import Policy
from rewards.settlement.policy_file import load_policy, policy_schema
from tests.pages import ROOT, Page, anchors, calls, code_words, faults_of_call, is_defined, pages
from tests.wanted import tracked_files

MOST_NAMES = 18
PAGES = pages()


def _default(name: str) -> Any:
    return Settings.model_fields[name].default


def _rooms() -> list[Path]:
    """Every package of the project's code."""
    return sorted(
        file.parent
        for package in ("attribution", "rewards", "deployment")
        for file in (ROOT / package).rglob("__init__.py")
    )


def test_every_package_tells_what_is_in_it():
    """The docstring of each package has a line for each module and package in it, and none for one that is gone."""
    wrong = {}
    for room in _rooms():
        docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
        told = re.findall(r"^(?:    )?([a-z_]+/?)  +\S", docstring, flags=re.MULTILINE)
        there = {file.stem for file in room.glob("*.py")} - {"__init__", "__main__"}
        there |= {f"{file.parent.name}/" for file in room.glob("*/__init__.py")}
        if sorted(told) != sorted(there):
            wrong[str(room.relative_to(ROOT))] = set(told) ^ there

    assert len(_rooms()) > 30
    assert wrong == {}


def test_a_table_of_contents_stays_short():
    """No package has more than eighteen names in it, and most have ten, so that each can be read at a glance."""
    crowded = {
        str(room.relative_to(ROOT)): count
        for room in _rooms()
        if (count := len([*room.glob("[a-z]*.py"), *room.glob("*/__init__.py")])) > MOST_NAMES
    }

    assert crowded == {}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_of_a_page_exists(page: Page):
    """Each `protoken …` of a page names a command with such options, and one that is typed out lacks nothing."""
    command = typer.main.get_command(app)
    typed = [words for line in page.lines for words in calls(line)]
    named = [words for span in page.spans if span.startswith("protoken ") for words in calls(span)]
    told = [(words, True) for words in typed] + [(words, False) for words in named]

    assert [] == [
        f"protoken {' '.join(words)}: {fault}"
        for words, whole in told
        for fault in faults_of_call(command, words, whole=whole)
    ]


def test_the_commands_of_the_pages_are_found():
    """The check of the commands looks at many, and tells what is wrong with one."""
    command = typer.main.get_command(app)
    typed = {words[0] for page in PAGES for line in page.lines for words in calls(line)}

    assert {"keys", "period", "ledger", "statement", "consortium", "trace", "evaluate", "serve", "hold"} <= typed
    for line, fault in (
        ("KEY=$(protoken keyz create) # protoken keys", "there is no keyz"),
        ("protoken keys create --rolle member", "there is no option --rolle"),
        ("while true; do protoken hold release HOLD_ID; done", "lacks --reason"),
        ("protoken period close | cat", "takes 1 to 1 words, not []"),
    ):
        assert fault in [each for words in calls(line) for each in faults_of_call(command, words, whole=True)], line


def _commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command with its options."""
    for name, found in ((name, load_command(found)) for name, found in getattr(command, "commands", {}).items()):
        if hasattr(found, "commands"):
            yield from _commands(found, *path, name)
        else:
            yield (*path, name), {option for parameter in found.params for option in parameter.opts}


def test_every_command_of_the_books_takes_a_ledger():
    """As rewards/README.md says: `--ledger` for all that reads the books, and `--json` for what shows some of them."""
    offline = {("ledger", "check-proof"), ("statement", "verify")}
    moves = {("period", "dispute"), ("period", "pay"), ("hold", "place"), ("hold", "release"), ("keys", "revoke")}
    files = {("statement", "issue"), ("period", "payouts")}
    found = {
        path: options
        for path, options in _commands(typer.main.get_command(app))
        if path[0] in {"ledger", "period", "hold", "statement", "keys"}
    }

    assert len(found) > 20
    assert offline == {path for path, options in found.items() if "--ledger" not in options}
    assert moves | files == {path for path, options in found.items() if "--json" not in options}


@pytest.mark.parametrize(
    ("sentence", "value", "expected"),
    [
        ("after every 15 silent seconds (`keep_alive_s`)", _default("keep_alive_s"), 15),
        ("for 10 minutes (`replay_window_s`)", _default("replay_window_s"), 10 * 60),
        ("for `texts_window_s` (7 days)", _default("texts_window_s"), 7 * 86_400),
        ("signs every 10 seconds", _default("seal_interval_s"), 10),
        ("on port 9464", _default("metrics_port"), 9464),
        ("on port 9465 (`replica_metrics_port`", _default("replica_metrics_port"), 9465),
        ("`http://127.0.0.1:8000`", (_default("host"), _default("port")), ("127.0.0.1", 8000)),
        ("(default `sqlite:///var/ledger.db`)", Settings.model_fields["ledger"].default, "sqlite:///var/ledger.db"),
        ("at least every 16 tokens", PROGRESS_TOKENS, 16),
        ("at its start and every 10 seconds", ADOPTION_INTERVAL_S, 10),
        ("for up to 1 s at its end to be booked", BOOKING_PATIENCE_S, 1),
        ("503 with `Retry-After` after 2 s", CLAIM_PATIENCE_S, 2),
        ("is 503 within five seconds", SILENCE_S + ANSWER_TIMEOUT_S, 5),
        ("lasts eight hours at most", LONGEST_S, 8 * 3600),
        ("ends within 5 seconds of the key's", key_cache.FRESH_S, 5),
        ("Figures are at most 2 seconds old", figures.FRESH_S, 2),
        ("The first 100 clients have a label each", MOST_CLIENTS, 100),
        ("works for 24 hours more", inspect.signature(keys.rotate).parameters["overlap_hours"].default, 24),
        ("one event a minute for a key and a route", MINUTE_S, 60),
        ("Replicas look every 2 seconds", POLL_S, 2),
        ("such a response waits for an hour", PATIENCE_S, 3600),
    ],
)
def test_times_and_bounds_are_those_of_the_code(sentence: str, value: object, expected: object):
    """Each number that a page promises stands in it as the code has it."""
    assert sentence in " ".join(page.words for page in PAGES)
    assert expected == value


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pictures_and_files_that_are_linked_are_there(page: Page):
    """No link of a page leads to a file that is gone, or to a heading that no page has."""
    lost = [
        link
        for link in page.links
        if not (target := page.leads_to(link)).exists()
        or ("#" in link and link.partition("#")[2] not in anchors(target.read_text(encoding="utf-8")))
    ]

    assert [] == lost


def test_every_page_is_found_from_the_readme():
    """Whoever follows links from the README comes to every page, and to a dozen files that are no pages."""
    known = {page.path: page for page in PAGES}
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = known[waiting.pop()]
        reached.add(page.path)
        led = {page.leads_to(link).resolve().relative_to(ROOT).as_posix() for link in page.links}
        waiting += sorted((led & known.keys()) - reached - set(waiting))

    assert {path for path in known if not path.startswith(".github/")} == reached
    assert len({link for page in PAGES for link in page.links if not link.startswith("#")}) > 30


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_is_easy_to_read(page: Page):
    """No line has more than 120 characters, and the README no more than 200 lines."""
    lines = page.text.splitlines()

    assert [] == [line for line in lines if len(line) > 120]
    assert len(lines) <= (200 if page.path == "README.md" else 300)


def test_every_benchmark_is_named():
    """Each benchmark of the Makefile is named by the page of the tests."""
    targets = set(re.findall(r"^(bench-[a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    (page,) = (page for page in PAGES if page.path == "tests/README.md")

    assert len(targets) > 8
    assert set() == targets - set(re.findall(r"bench-[a-z]+", page.text))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_make_target_of_a_page_exists(page: Page):
    """Each `make …` that a page names is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = [*(line.split("#")[0] for line in page.lines), *page.spans]
    named = {target for each in told for target in re.findall(r"(?:^|[ =|])make ([a-z][a-z-]*)", each)}

    assert [] == [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_a_page_names_are_there(page: Page):
    """Each path within the project that a page names is there, from the root or beside it, tests to run among them."""
    folder = (ROOT / page.path).parent
    told = [*(line.split("#")[0] for line in page.lines), *page.spans]
    words = [word.strip("'\":,;") for each in told for word in re.split(r"[\s=]|\$PWD/", each)]
    inside = re.compile(r"(?:\./)?(?:attribution|rewards|deployment|configs|tests|\.github)/[\w./*-]*")
    beside = re.compile(r"[\w./-]*\w(?:\.(?:py|md|ya?ml|toml)|/)|Makefile|Dockerfile")
    named = {word for word in words if inside.fullmatch(word)}
    named |= {span for span in page.spans if beside.fullmatch(span)}

    assert [] == [name for name in sorted(named) if not [*ROOT.glob(name), *folder.glob(name)]]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_names_of_the_code_in_a_page_are_in_the_code(page: Page):
    """A module by its dotted name is there; a name with an underscore, and a variable of ours, is one of the code."""
    dotted = [span for span in page.spans if re.fullmatch(r"(attribution|rewards|deployment|tests)(\.\w+)+", span)]
    named = {span for span in page.spans if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", span)}
    named |= set(re.findall(r"\bprotoken_[a-z_]*[a-z]\b", page.text))
    named |= set(re.findall(r"\bPROTOKEN_[A-Z_]*[A-Z]\b", page.text)) - SETTINGS_OF_ENVIRONMENT

    assert [] == [name for name in dotted if not is_defined(name)]
    assert [] == sorted(named - code_words())


SETTINGS_OF_ENVIRONMENT = {f"PROTOKEN_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_addresses_that_a_page_names_are_answered(page: Page):
    """Each path of the service in a page is a route, or what several routes begin with."""
    text = " ".join([*page.lines, *page.spans])
    named = set(re.findall(r"(?<![\w.])(?:127\.0\.0\.1:8000)?(/(?:v1|api/v1|console|health)(?:/[\w{}./-]*)?)", text))

    assert [] == [path for path in sorted(named) if not any(re.match(route, path + "/") for route in _routes())]


@cache
def _routes() -> list[str]:
    """Every route of the service and every beginning of one, as patterns."""
    routers = {"": [routes.service_router, routes.router]}
    for prefix, package in (("/api/v1", api_routes), ("/console", console_pages)):
        modules = [
            importlib.import_module(f"{package.__name__}.{each.name}") for each in iter_modules(package.__path__)
        ]
        routers[prefix] = [module.router for module in modules]
    paths = {prefix + route.path for prefix, several in routers.items() for each in several for route in each.routes}
    begun = {"/".join(path.split("/")[:length]) for path in paths for length in range(2, path.count("/") + 2)}
    return [re.sub(r"\{[^}]+\}", "[^/]+", path).rstrip("/") + "/$" for path in begun]


def test_the_roles_of_the_page_are_those_of_keys():
    """The page that says what each role may names every role."""
    (page,) = (page for page in PAGES if page.path == "deployment/README.md")
    table = page.text.split("| role | may |")[1].split("\n\n")[0]

    assert set(ROLES) == set(re.findall(r"^\| \*(\w+)\* \|", table, flags=re.MULTILINE))


def test_the_recipe_of_the_page_is_one(tmp_path):
    """The recipe that a page shows is accepted as it is, and the commands beside it are for it."""
    (page,) = (page for page in PAGES if page.path == "attribution/README.md")
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", page.text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "my.yaml").write_text(recipe, encoding="utf-8")
    for name in ("north.jsonl", "south.jsonl"):
        (tmp_path / name).write_text('{"prompt": "a", "response": "b"}\n', encoding="utf-8")

    assert ["north", "south"] == [client.id for client in load_recipe(tmp_path / "my.yaml").clients]
    assert "protoken consortium build my.yaml" in page.text


def test_the_accounts_of_the_page_are_some(tmp_path):
    """The file of accounts that the page of settlement shows is accepted as it is."""
    (page,) = (page for page in PAGES if page.path == "rewards/README.md")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page.text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "payees.yaml").write_text(text, encoding="utf-8")

    assert {"clinic", "bank", "commons"} == set(load_accounts(tmp_path / "payees.yaml").payees)


def test_every_dependency_earns_its_place():
    """Each package that is installed is in a table that says what for, and none that is not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    tables = [
        page.text.split("## Dependencies, and why\n")[1] for page in PAGES if "## Dependencies, and why\n" in page.text
    ]
    cells = [cell for table in tables for cell in re.findall(r"^\| ([^|]+) \| [^|]+ \|$", table, flags=re.MULTILINE)]
    told = {re.sub(r"\[.*", "", name) for cell in cells for name in cell.lower().split(", ")} - {"package"}

    assert len(tables) > 3
    assert {re.split(r"[\[<>=!~;]", each.lower())[0].strip() for each in wanted} - {project["name"]} == told


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
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|@[A-Z]{4,}@")
    marked = [
        file
        for file in tracked_files()
        if file.suffix in {".py", ".md", ".yaml", ".toml"} and file != Path(__file__)
        if marks.search(file.read_text(encoding="utf-8"))
    ]

    assert marked == []
