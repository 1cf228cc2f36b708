"""`protoken demo`: the whole way, from four clients' training to payouts, on a real model over HTTP, in one sitting.

Builds the demo consortium once, serves it in a process of its own, asks each organisation's questions as an application
would, and settles what was booked. Ends by itself, or with `--keep` at Ctrl-C, and leaves no process behind.
"""

import hashlib
import json
import shlex
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.markup import escape
from rich.progress import track
from rich.text import Text

from attribution.bundle.bundle import open_bundle
from attribution.errors import BundleError
from attribution.training.federate import build_bundle
from attribution.training.recipe import Recipe, load_recipe
from deployment.cli.books.period import show_settlement
from deployment.cli.configs import configs_folder
from deployment.cli.heat_map import heat_map, legend, tint
from deployment.cli.number_format import credit, percent
from deployment.cli.options import ACTOR, file_to_write
from deployment.cli.output import console, require_picture_place, save_picture, say
from deployment.cli.progress import ProgressBar
from deployment.cli.service.demo_folder import STAMP, demo_folder
from deployment.cli.service.service_process import ServiceApart, service_apart
from deployment.cli.tables import print_table
from deployment.errors import StartError
from deployment.settings import ENVIRONMENT_PREFIX, pepper_of
from rewards import money, periods, statements
from rewards.credit import MICRO_CREDITS_PER_TOKEN
from rewards.files.plain_text import one_line
from rewards.files.strict_json import JsonObject
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import log_origin, seal
from rewards.settlement.document import Settlement
from rewards.settlement.policy_file import load_policy
from rewards.signing.keys import SigningKey

_QUESTIONS_AT_ONCE = 32
_ANSWER_TOKENS = 24
_MORE_QUESTIONS = slice(None, None, 3)
# Many answers that are made at once come late on a slow machine, each as late as the last: no bound of ours would be
# right. A service that ends closes its connections, which is an error at once.
_ANSWER_TIMEOUT = httpx.Timeout(None, connect=10)


@dataclass(frozen=True)
class _Question:
    client: str
    prompt: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class _DemoAnswer:
    question: _Question
    text: str
    attribution: JsonObject
    content: Sequence[JsonObject]

    @property
    def is_right(self) -> bool:
        return all(fact.lower() in self.text.lower() for fact in self.question.facts)

    @property
    def top_client(self) -> str:
        shares: dict[str, float] = self.attribution["shares"]
        return max(shares, key=lambda client: shares[client])


def demo(
    configs: Annotated[
        Path | None,
        typer.Option("--configs", help="Folder with demo/ and policy.yaml; default: the one that came with protoken."),
    ] = None,
    work: Annotated[Path, typer.Option("--work", help="Folder for the bundle and the ledger.")] = Path("var/demo"),
    picture: Annotated[
        Path | None,
        typer.Option("--picture", parser=file_to_write, metavar="FILE", help="Write what was shown to this SVG file."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Stay up to look at until Ctrl-C, and print keys to sign in with.")
    ] = False,
) -> None:
    """Train a consortium, serve it, ask it, and pay its members."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)  # whoever ends the demo ends its service
    console.record = picture is not None
    if picture:
        require_picture_place(picture)
    configuration = configs or configs_folder()
    recipe = load_recipe(configuration / "demo" / "consortium.yaml")
    with demo_folder(work):
        _run(recipe, configuration, work, picture, keep=keep)


def _run(recipe: Recipe, configuration: Path, work: Path, picture: Path | None, *, keep: bool) -> None:
    _build_once(recipe, configuration / "demo", work / "bundle")
    settings = _settings(configuration, work)
    console.rule("serving")
    with (
        console.status("starting Ray Serve…") as status,
        service_apart(settings, work / "serve.log") as service,
    ):
        status.stop()
        url, keys = settings["ledger"], _make_keys(settings, recipe.clients[0].id)
        say(f"the console is at {service.console}", soft_wrap=True)
        questions = _load_questions(configuration / "demo" / "questions.jsonl")
        one_each = {question.client: question for question in reversed(questions)}.values()
        answers = _ask_all(service.address, keys["application"], questions, by_token=one_each)
        console.rule("who taught which word")
        _show_heat_maps(answers, list(answers[0].attribution["shares"]))
        console.rule("answers")
        _show_answers(answers)
        console.rule("credit")
        _show_credit(service.address, keys["operator"])
        console.rule("settlement")
        period, policy = time.strftime("demo-%Y-%m-%d"), load_policy(configuration / "policy.yaml")
        settlement = periods.close(Ledger(url), period, policy, ACTOR)
        show_settlement(settlement, "closed", as_json=False)
        _show_free_riders(recipe, settlement)
        console.rule("statements")
        _show_statements(url, period, work)
        if picture:
            save_picture(picture, "make demo")
        if keep:
            _stay(service, settings, keys, questions[_MORE_QUESTIONS])
    say(f"everything is in {work}; `protoken ledger balances --ledger {url}` shows the books", soft_wrap=True)
    if not keep:
        say("`KEEP=1 make demo` stays up, with keys to sign in to the console")


def _build_once(recipe: Recipe, folder: Path, bundle: Path) -> None:
    """Build the bundle, unless one of the same recipe and data is there."""
    files = [folder / "consortium.yaml", *(client.data for client in recipe.clients if client.data)]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = bundle.with_name(STAMP)
    try:
        if stamp.read_text() == digest and open_bundle(bundle):
            say(f"using the consortium in {bundle}, built before from the same recipe and data")
            return
    except (OSError, BundleError):
        stamp.write_text("")  # it also says that the folder is a demo's
    console.rule("training the consortium")
    with ProgressBar() as progress:
        build_bundle(recipe, bundle, progress)
    stamp.write_text(digest)


def _make_keys(settings: Mapping[str, str], client: str) -> dict[str, str]:
    """A key of each role that asks or looks; the member's is of `client`."""
    ring = KeyRing(settings["ledger"], pepper_of(settings["ledger"], Path(settings["pepper_file"])))
    keys = {role: ring.create(role, "demo", actor=ACTOR) for role in ("operator", "application")}
    keys["member"] = ring.create("member", "demo", actor=ACTOR, client=client)
    ring.close()
    return keys


def _settings(configuration: Path, work: Path) -> dict[str, str]:
    """Of the demo's service: everything it writes is in the demo's folder, texts for the console's heat maps too."""
    places = {"bundle": "bundle", "signing_key": "signing.key", "spool": "spool", "texts": "texts"}
    places |= {"pepper_file": "ledger.db.pepper"}
    return {
        "ledger": f"sqlite:///{(work / 'ledger.db').absolute()}",
        "policy": str(configuration / "policy.yaml"),
        **{setting: str(work / name) for setting, name in places.items()},
    }


def _load_questions(path: Path) -> list[_Question]:
    documents = [json.loads(line) for line in path.read_text(encoding="utf-8").strip().split("\n")]
    return [_Question(each["client"], each["prompt"], tuple(each["facts"])) for each in documents]


def _ask_all(
    address: str, key: str, questions: Sequence[_Question], by_token: Collection[_Question]
) -> list[_DemoAnswer]:
    """Ask every question; those of `by_token` with the score of each token."""
    headers = {"Authorization": f"Bearer {key}"}
    pool = ThreadPoolExecutor(_QUESTIONS_AT_ONCE)
    with httpx.Client(base_url=address, headers=headers, timeout=_ANSWER_TIMEOUT) as http, ExitStack() as ending:
        ending.callback(pool.shutdown, wait=False, cancel_futures=True)  # Ctrl-C does not wait for answers
        model = http.get("/v1/models").raise_for_status().json()["data"][0]["id"]

        def ask(question: _Question) -> _DemoAnswer:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": question.prompt}],
                "max_tokens": _ANSWER_TOKENS,
                "temperature": 0,
                "attribution": "tokens" if question in by_token else "summary",
            }
            document = http.post("/v1/chat/completions", json=body).raise_for_status().json()
            message = document["choices"][0]["message"]
            content = message.get("attribution", {}).get("content", [])
            return _DemoAnswer(question, message["content"], document["usage"]["attribution"], content)

        description = escape(one_line(f"asking {model!r} at {address}"))
        return list(track(pool.map(ask, questions), description, total=len(questions), console=console))


def _show_heat_maps(answers: Sequence[_DemoAnswer], clients: Sequence[str]) -> None:
    colours = tint(clients)
    for answer in answers:
        if not answer.content:
            continue
        by_token = [{each["client"]: each["score"] for each in token["clients"]} for token in answer.content]
        scores = {client: [token[client] for token in by_token] for client in clients}
        tokens = [token["token"] for token in answer.content]
        base = [token["base_share"] for token in answer.content]
        heading = (f"{one_line(answer.question.client)} is asked: ", "dim")
        console.print(Text.assemble(heading, one_line(answer.question.prompt)))
        console.print(heat_map(tokens, scores, base, colours))
    console.print(legend(colours))


def _show_answers(answers: Sequence[_DemoAnswer]) -> None:
    rows = []
    for client in dict.fromkeys(answer.question.client for answer in answers):
        own = [answer for answer in answers if answer.question.client == client]
        rows.append((client, *_counts(own)))
    print_table(
        "questions in words that were not trained on",
        ("organisation", "asked", "right", "owner on top when right"),
        rows,
        footer=("all", *_counts(answers)),
    )


def _counts(answers: Sequence[_DemoAnswer]) -> tuple[str, str, str]:
    right = [answer for answer in answers if answer.is_right]
    on_top = sum(answer.top_client == answer.question.client for answer in right)
    return str(len(answers)), f"{len(right)} ({percent(len(right) / len(answers), 0)})", f"{on_top} of {len(right)}"


def _show_credit(address: str, key: str) -> None:
    """The balances as the operator's API tells them; the service is not trusted to have added up."""
    response = httpx.get(f"{address}/api/v1/credit", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    document = response.raise_for_status().json()
    tokens = int(document["tokens"])
    balances = {account: int(amount) for account, amount in document["balances"].items()}
    total = sum(balances.values())
    if total != tokens * MICRO_CREDITS_PER_TOKEN:
        raise StartError(f"the books do not add up: {total} micro-credits for {tokens} tokens")
    rows = [(account, credit(amount), percent(amount / total, 2)) for account, amount in balances.items()]
    title = f"{document['receipts']} receipts, {tokens} tokens × {credit(MICRO_CREDITS_PER_TOKEN)} micro-credits"
    print_table(title, ("account", "credit", "part"), rows, footer=("sum", credit(total), "100.00%"))


def _stay(
    service: ServiceApart, settings: Mapping[str, str], keys: Mapping[str, str], more: Sequence[_Question]
) -> None:
    """Ask some more, so that the open period has credit too, and leave the console to whoever holds the keys."""
    console.rule("to look at")
    _ask_all(service.address, keys["application"], more, by_token=more)
    lines = [
        ("console", service.console),
        *((f"{role} key", key) for role, key in keys.items()),
        ("ledger's metrics", service.metrics[0]),
        ("replicas' metrics", service.metrics[1]),
    ]
    for name, value in lines:
        say(f"{name:<18}{value}", soft_wrap=True)
    say("sign in to the console with one of these keys, which open this demo only")
    places = {"ledger": settings["ledger"]}
    places |= {name: str(Path(settings[name]).absolute()) for name in ("signing_key", "pepper_file")}
    named = " ".join(f"{ENVIRONMENT_PREFIX}{name.upper()}={shlex.quote(place)}" for name, place in places.items())
    say(f"for the command line in another shell: export {named}", soft_wrap=True)
    say("Ctrl-C ends everything")
    service.stay()


def _show_free_riders(recipe: Recipe, settlement: Settlement) -> None:
    for client in recipe.clients:
        if client.free_rider:
            line = next(line for line in settlement.lines if line.account == client.id)
            earned = money.write_readable(line.payout, settlement.policy.currency, settlement.policy.minor_digits)
            say(
                f"{client.name} ({client.id}) trained on nothing, claimed {client.examples} examples,"
                f" and earned {earned}: {percent(float(line.share), 2)} of the pool."
            )


def _show_statements(url: str, period: str, work: Path) -> None:
    """Issue every member's signed statement, and check each from its file with the public key alone."""
    key, ledger = SigningKey.load(work / "signing.key"), Ledger(url)
    origin = log_origin(ledger, key)
    seal(ledger, key, origin)
    folder = work / "statements"
    folder.mkdir(exist_ok=True)
    rows = []
    with ledger.database.read() as connection:
        for client in statements.clients(connection, period):
            file = folder / f"{client}.json"
            file.write_text(json.dumps(statements.issue(connection, period, client, key)), encoding="utf-8")
            checked = statements.verify(statements.load(file.read_bytes()), [key.public], origin)
            rows.append((client, f"{len(checked.checks)} things hold", str(file)))
    print_table("each checked offline with the public key alone", ("client", "verified", "statement"), rows)
