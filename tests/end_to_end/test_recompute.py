"""A batch that was served over HTTP is attributed again: within the bounds that are stated, by the page's commands."""

import json
import os
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from attribution.model import FederatedModel
from rewards.ledger.ledger import Ledger
from tests.benchmarks.recomputation import again, ask, bodies, show
from tests.end_to_end.service import new_ledger, service
from tests.pages import pages

pytestmark = pytest.mark.slow
AT_ONCE = 8


@pytest.fixture(scope="module")
def served(real_bundle, tmp_path_factory):
    """The ledger of a service that answered requests of every kind, eight at once, and what it answered."""
    folder = tmp_path_factory.mktemp("service")
    with service(real_bundle, new_ledger(folder), folder / "serve.log") as running:
        return running.ledger, ask(running, bodies("real", 2 * AT_ONCE), AT_ONCE)


def test_a_served_batch_comes_to_what_was_booked(served, real_bundle, tmp_path):
    """Chats and texts, short and long prompts, greedy and sampled, with attribution and without: each within bounds."""
    ledger, exchanges = served
    model = FederatedModel.load(real_bundle)
    with closing(Ledger(ledger)) as book:
        tried = [again(model, book, exchange, tmp_path) for exchange in exchanges]
    show(f"served {AT_ONCE} at once", tried)
    made = [each for each in tried if each is not None]

    assert len(made) >= AT_ONCE
    assert [] == [each.receipt.response_id for each in made if not each.agrees]
    assert max(each.credit_difference for each in made) > 0, "it tells apart what is not the same to the unit"


def commands() -> list[list[str]]:
    """The commands of the page's chapter."""
    (page,) = (page for page in pages() if page.path == "rewards/README.md")
    return [shlex.split(line, comments=True) for line in page.lines if line.startswith("protoken ledger recompute")]


def run(words: list[str], folder: Path, ledger: str) -> subprocess.CompletedProcess[str]:
    """A command of the page, in the folder in which its files lie."""
    return subprocess.run(
        [sys.executable, "-m", "deployment.cli", *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PROTOKEN_LEDGER": ledger, "COLUMNS": "120"},
    )


def test_the_commands_of_the_page_do_so(served, real_bundle, tmp_path):
    """Each ends well, with both bounds; and ends with 1 where one word of the prompt was another."""
    ledger, exchanges = served
    exchange = next(each for each in exchanges if "messages" in each.request and not each.request["temperature"])
    text = exchange.answer["choices"][0]["message"]["content"]
    (tmp_path / "request.json").write_text(json.dumps(exchange.request))
    (tmp_path / "answer.json").write_text(json.dumps(exchange.answer))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "bundle").symlink_to(real_bundle)
    typed = [[word.replace("RESPONSE_ID", exchange.answer["id"]) for word in words] for words in commands()]
    ran = [run(words, tmp_path, ledger) for words in typed]
    asked = exchange.request["messages"][0]["content"]
    other = {**exchange.request, "messages": [{"role": "user", "content": f"Surely, {asked}"}]}
    (tmp_path / "request.json").write_text(json.dumps(other))
    refused = run(typed[0], tmp_path, ledger)

    assert len(typed) >= 2
    assert [0] * len(ran) == [each.returncode for each in ran], [each.stderr for each in ran]
    for each in ran:
        assert "credit: the greatest difference is" in each.stdout and "scores: the greatest" in each.stdout
    assert (1, True) == (refused.returncode, "does not come to what was booked" in refused.stderr), refused.stderr
