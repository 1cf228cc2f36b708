"""`protoken trace` with ids: booked responses, who earned them, and their answers where the service keeps texts."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deployment.books.traces import trace_booked
from deployment.replica.messages import TokenCredit
from deployment.retention.texts import KeptText, Texts
from rewards.ledger.ledger import Ledger
from tests.deployment.cli.test_commands import run
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.rewards.sampled_credit.sampled import pending

FIRST, SECOND, REVERSED = "chatcmpl-first", "chatcmpl-second", "chatcmpl-reversed"
WORDS = ("The ", "bell ", "is ", "green")
WHOSE = ("commons", "clinic", "clinic", "bank")
TOP = ("bank", "clinic", "clinic", "bank")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of three responses, one of them reversed, and a folder with the texts of two."""
    folder = tmp_path_factory.mktemp("traced")
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger:
        ledger.register("demo", MEMBERS)
        ledger.append(make_receipt(FIRST, tokens=4))
        ledger.append(make_receipt(SECOND, tokens=2, shares={"bank": 1.0}))
        ledger.append(make_receipt(REVERSED, tokens=1, shares={"clinic": 1.0}))
        ledger.reverse(REVERSED, "planted", "test")
    texts = Texts(folder / "texts", 3600.0)
    texts.keep(text(FIRST, tuple(token(word, whose) for word, whose in zip(WORDS, WHOSE, strict=True))))
    texts.keep(text(SECOND, ()))
    return folder


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    """That ledger, open."""
    with closing(Ledger(f"sqlite:///{folder}/ledger.db")) as ledger:
        yield ledger


def token(word: str, whose: str) -> TokenCredit:
    """A token of which somebody has three quarters."""
    parts = {client: 0.75 if client == whose else 0.25 if whose == "commons" and client == "bank" else 0.0
             for client in ("bank", "clinic")}  # fmt: skip
    scores = {client: part - 0.1 for client, part in parts.items()}
    return TokenCredit(word, 1, parts, scores, 1 - sum(parts.values()))


def text(response_id: str, tokens: tuple[TokenCredit, ...], application: str = "0123456789ab") -> KeptText:
    """What is kept of a response."""
    shares = {"bank": 0.25, "clinic": 0.5}
    said = "".join(WORDS) if tokens else "Nobody knows."
    return KeptText(response_id, application, "demo", 1_700_000_000_000_000, said, shares, 0.25, tokens)


def trace(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str, str]:
    """The command on that ledger."""
    return run(capsys, "trace", *words, "--ledger", f"sqlite:///{folder}/ledger.db")


def test_clients_are_ranked_by_their_booked_credit(ledger: Ledger) -> None:
    """The sums are those of the entries, to the unit; each response counts once, however often it is named."""
    traced = trace_booked(ledger, [FIRST, SECOND, FIRST])
    receipts = [ledger.receipt(each) for each in (FIRST, SECOND)]
    earned = {each.client: each.credit for each in traced.earners}

    assert 2 == len(traced.responses)
    assert {c: sum(each.amounts.get(c, 0) for each in receipts if each) for c in ("bank", "clinic")} == earned
    assert [("bank", "A bank", 1), ("clinic", "A clinic", 1)] == [(e.client, e.name, e.top_in) for e in traced.earners]
    assert sum(each.amounts.get("commons", 0) for each in receipts if each) == traced.commons
    assert 1.0 == pytest.approx(sum(each.share for each in traced.earners))


def test_the_answer_is_shown_with_whose_each_token_is(capsys, folder: Path) -> None:
    """Tokens that follow one another and are one account's are a line, in a terminal and in a file alike."""
    code, out, err = trace(capsys, folder, FIRST, "--texts", str(folder / "texts"))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.count("│") == 6]

    assert (0, "") == (code, err)
    assert "The bell is green" in out
    assert [
        ["1", "bank", "+0.15", "25%", "The"],
        ["2–3", "clinic", "+1.30", "75%", "bell is"],
        ["4", "bank", "+0.65", "75%", "green"],
    ] == rows[-3:]


def test_json_has_exact_credit_and_each_token(capsys, folder: Path) -> None:
    """What is booked is decimal text; tokens are there as they are kept."""
    code, out, _err = trace(capsys, folder, FIRST, SECOND, "--texts", str(folder / "texts"), "--json")
    document = json.loads(out)
    first, second = document["responses"]

    assert 0 == code
    assert {"bank": "1000000", "clinic": "2000000", "commons": "1000000", "rider": "0"} == first["credit"]
    assert [*zip(WORDS, TOP, strict=True)] == [(each["token"], each["whose"]) for each in first["text_tokens"]]
    assert [0.65, 0.65] == [each["scores"]["clinic"] for each in first["text_tokens"][1:3]]
    assert ("Nobody knows.", []) == (second["text"], second["text_tokens"])
    assert ["bank", "clinic"] == [each["client"] for each in document["clients"]]


def test_what_a_text_does_not_tell_is_said(capsys, folder: Path) -> None:
    """An answer that was asked for without tokens, one that is not kept, and a service that keeps none."""
    texts = ("--texts", str(folder / "texts"))

    assert 'was not asked for (attribution: "tokens")' in trace(capsys, folder, SECOND, *texts)[1]
    assert "its text is not kept, or no longer" in trace(capsys, folder, REVERSED, *texts)[1]
    assert "texts are not kept here" in trace(capsys, folder, FIRST)[1]


def test_the_environment_names_the_folder_of_texts(capsys, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for the service; a folder that is not there is named."""
    monkeypatch.setenv("PROTOKEN_TEXTS", str(folder / "texts"))
    shown = trace(capsys, folder, FIRST)[1]
    monkeypatch.setenv("PROTOKEN_TEXTS", str(folder / "nowhere"))
    code, _out, err = trace(capsys, folder, FIRST)

    assert "The bell is green" in shown
    assert (1, 1) == (code, len(err.splitlines()))
    assert f"{folder}/nowhere" in err


def test_a_text_of_another_ledger_is_none(capsys, folder: Path, tmp_path: Path) -> None:
    """A folder that two ledgers share may hold another response of the same id."""
    Texts(tmp_path, 3600.0).keep(text(FIRST, (), application="ffffffffffff"))

    assert "its text is not kept" in trace(capsys, folder, FIRST, "--texts", str(tmp_path))[1]


def test_reading_texts_deletes_none(capsys, folder: Path) -> None:
    """The service deletes what is over; who traces makes no folder, and takes nothing away."""
    before = sorted(each.name for each in (folder / "texts").iterdir())
    trace(capsys, folder, FIRST, "--texts", str(folder / "texts"))

    assert before == sorted(each.name for each in (folder / "texts").iterdir())


def test_a_reversed_response_is_traced_and_named(capsys, folder: Path) -> None:
    """Who is behind it is asked of just such responses; that its credit was taken back is said."""
    code, out, _err = trace(capsys, folder, REVERSED)

    assert 0 == code
    assert f"reversed: {REVERSED}, by reversal-{REVERSED}" in out
    assert "1 of 1" in out


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (["chatcmpl-no", FIRST, "../ledger"], "not booked in this ledger: 'chatcmpl-no', '../ledger'"),
        ([f"reversal-{REVERSED}"], f"'reversal-{REVERSED}' is a reversal: trace '{REVERSED}', its response"),
    ],
)
def test_what_is_no_booked_response_is_named(capsys, folder: Path, ids: list[str], reason: str) -> None:
    """All that are unknown on one line, and nothing is ranked by the rest."""
    code, out, err = trace(capsys, folder, *ids)

    assert (1, "", f"protoken: {reason}\n") == (code, out, err)


def test_what_was_not_measured_is_in_no_ranking(tmp_path: Path) -> None:
    """Of a response whose credit is pending nobody can say whose it is."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger:
        ledger.register("demo", MEMBERS)
        receipt = pending("chatcmpl-p", tokens=3)
        ledger.append(receipt)
        traced = trace_booked(ledger, [receipt.response_id])

    assert ((), 0, [False]) == (traced.earners, traced.commons, [each.is_measured for each in traced.responses])


@pytest.mark.parametrize(
    "words", [[], ["--responses", "x"], ["--bundle", "b"], [FIRST, "--responses", "x", "--bundle", "b"]]
)
def test_ids_or_texts_are_wanted(capsys, folder: Path, words: list[str]) -> None:
    """Neither, half of it, and both at once are wrong usage."""
    code, _out, err = trace(capsys, folder, *words)

    assert 2 == code
    assert "--responses" in err
