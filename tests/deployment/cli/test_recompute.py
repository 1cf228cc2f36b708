"""`protoken ledger recompute`: an auditor attributes a booked response again, and every other one is told from it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from attribution.attribute import attribute
from attribution.model import FederatedModel
from attribution.records import AttributedResponse
from attribution.scoring.credit_preset import USUAL_EFFORT, Effort
from attribution.teacher_forcing import forced_generation
from deployment.replica.booking.receipts import receipt_of
from deployment.replica.bundles.publish import publish_setting
from deployment.replica.messages import ModelCard, TokenCredit
from deployment.replica.scoring.recomputation import CREDIT_BOUND, SCORE_BOUND
from deployment.retention.texts import KeptText, Texts
from deployment.spool.records import RECOVERED, ProgressRecord, unscored_receipt
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.rule import SamplingRule
from tests.attribution.consortia import base_model, lora_update, updates, write_consortium
from tests.deployment.cli.test_ledger import run, spoil
from tests.deployment.replica.test_worker import job

PROMPT, TEXT, STOP = "the bell is", "violet, and rings", " now"
END = 2
ID = "cmpl-" + "a" * 32
CHAT_ID = "chatcmpl-" + "b" * 32


@dataclass
class World:
    """A ledger with a published bundle, and the files of one exchange."""

    folder: Path
    model: FederatedModel
    ledger: Ledger

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/ledger.db"

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def attributed(
        self, prompt: str, token_ids: tuple[int, ...], *, effort: Effort = USUAL_EFFORT, by_token: bool = False
    ) -> AttributedResponse:
        """What a replica makes of a response."""
        generation = forced_generation(self.model, self.model.encode_text(prompt), token_ids)
        return attribute(self.model, generation, effort=effort, token_level=by_token)

    def book(
        self, response: AttributedResponse, response_id: str = ID, marks: Mapping[str, Any] | None = None, **other: Any
    ) -> None:
        """Book it as a replica does."""
        model = self.model
        card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
        self.ledger.append(replace(receipt_of(job(response_id), card, response, 1, marks or {}), **other))

    def keep(self, text: str | None = TEXT, prompt: Any = PROMPT, **other: Any) -> list[object]:
        """The files of a text completion, and the options that name them."""
        request = {"model": self.model.name, "prompt": prompt, "temperature": 0, **other}
        (self.folder / "request.json").write_text(json.dumps(request))
        options = ["--request-file", self.folder / "request.json", "--ledger", self.url]
        if text is None:
            return options
        (self.folder / "text.txt").write_bytes(text.encode())
        return [*options, "--text-file", self.folder / "text.txt"]

    def keep_answer(self, choices: list[Mapping[str, Any]], answer_id: str = ID) -> list[object]:
        """The body of an answer, and the options that name it."""
        (self.folder / "answer.json").write_text(json.dumps({"id": answer_id, "choices": choices}))
        return ["--answer-file", self.folder / "answer.json"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FederatedModel:
    """A random four-block Llama that two clients trained."""
    base = base_model("llama")
    parts = {name: lora_update(base, seed, first_block=2) for seed, name in enumerate(("clinic", "bank"))}
    return FederatedModel.load(write_consortium(tmp_path_factory.mktemp("consortium"), base, parts))


@pytest.fixture
def world(tmp_path, model) -> World:
    """An empty ledger in which its bundle is published."""
    Ledger.prepare(f"sqlite:///{tmp_path}/ledger.db")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    publish_setting(ledger, model.bundle)
    return World(tmp_path, model, ledger)


@pytest.fixture
def booked(world) -> World:
    """The same with one response that reached its length."""
    world.book(world.attributed(PROMPT, world.ids(TEXT)))
    return world


def test_a_booked_response_comes_to_what_was_booked(capsys, booked):
    """The table has each account, booked and again; the bundle is where it was published; what is unproven is said."""
    code, out, err = run(capsys, "ledger", "recompute", ID, *booked.keep())

    assert (0, "") == (code, err)
    rows = {row[0].strip(): row[1:] for row in (line.split("│")[1:-1] for line in out.splitlines() if line[:1] == "│")}
    assert {"bank", "clinic", "commons", "sum"} == set(rows)
    assert {**booked.ledger.receipt(ID).amounts, "sum": len(TEXT) * 1_000_000} == {
        account: int(row[0].replace(" ", "")) for account, row in rows.items()
    }
    assert f"the bound is {CREDIT_BOUND['float32'] * len(TEXT):,}".replace(",", " ") in out
    assert f"bundle {booked.model.bundle.path}, the one that was booked" in out
    assert "a receipt holds no hash of prompt and text" in out


def test_as_json_it_is_a_document(capsys, booked):
    """Every number, and whether it agrees; of altered credit too, which ends with 1 all the same."""
    good = run(capsys, "ledger", "recompute", ID, *booked.keep(), "--json")
    told = json.loads(good[1])

    assert (0, True, False, False) == (good[0], told["agrees"], told["proven_by_hash"], told["reversed"])
    assert told["credit"]["booked"].keys() == told["credit"]["recomputed"].keys()
    assert int(told["credit"]["greatest_difference"]) <= int(told["credit"]["bound"])
    assert told["scores"]["greatest_difference"] <= told["scores"]["bound"] == SCORE_BOUND["float32"] * len(TEXT)


@pytest.mark.parametrize("changes", [{"text": TEXT.replace("v", "w")}, {"prompt": PROMPT.replace("bell", "ball")}])
def test_another_text_or_prompt_of_as_many_tokens_is_beyond_the_bounds(capsys, booked, changes):
    """One letter of it makes other scores than were booked."""
    code, out, err = run(capsys, "ledger", "recompute", ID, *booked.keep(**changes))

    assert 1 == code
    assert "booked" in out and "recomputed" in out
    assert "does not come to what was booked: prompt or text are others, or its tokens" in err


def test_altered_credit_is_beyond_the_bounds(capsys, booked):
    """Who moved credit from one account to another, past the ledger, is told by the greatest difference."""
    moved = CREDIT_BOUND["float32"] * len(TEXT) + 10_000
    spoil(booked.folder, f"UPDATE entries SET amount = amount - {moved} WHERE account = 'commons'")
    spoil(booked.folder, f"UPDATE entries SET amount = amount + {moved} WHERE account = 'bank'")
    code, out, err = run(capsys, "ledger", "recompute", ID, *booked.keep(), "--json")
    told = json.loads(out)

    assert (1, False) == (code, told["agrees"])
    assert abs(moved - int(told["credit"]["greatest_difference"])) <= len(TEXT)
    assert "the credit is wrong" in err


def test_scores_that_were_altered_are_beyond_the_bounds(capsys, booked):
    """The evidence of a receipt is held against the model as its credit is."""
    response = booked.attributed(PROMPT, booked.ids(TEXT))
    forged = {**response.response_scores, "bank": response.response_scores["bank"] + 1}
    booked.book(replace(response, response_scores=forged), ID.replace("a", "c"))

    assert 1 == run(capsys, "ledger", "recompute", ID.replace("a", "c"), *booked.keep())[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "the request asks model 'other'"),
        ({"temperature": 0.5}, "asks for temperature 0.5, and"),
        ({"messages": [{"role": "user", "content": "x"}], "prompt": None}, "asks for a chat, and"),
        ({"n": 99}, "n: Input should be less than or equal to 8"),
        ({"tools": [{"type": "function"}]}, "parameter 'tools' is not supported by this service"),
        ({"prompt": "x" * 2000}, "the prompt has"),
        ({"text": TEXT + "!"}, "has 18 tokens, and 17 were booked"),
        ({"text": TEXT[:-3], "stop": ["!!"]}, "a stop string ended it, the tokens of which are in no text"),
        ({"text": TEXT[:-3] + "\ufffd\ufffd"}, "ends within a character"),
    ],
)
def test_what_is_plainly_another_is_refused_by_name(capsys, booked, changes, message):
    """Another model, temperature or kind, a request that nobody answers, another number of tokens."""
    fields = {name: value for name, value in changes.items() if value is not None}
    options = booked.keep(**fields)
    if "messages" in changes:
        request = {"model": booked.model.name, "messages": changes["messages"]}
        (booked.folder / "request.json").write_text(json.dumps(request))
    code, out, err = run(capsys, "ledger", "recompute", ID, *options)

    assert (1, "") == (code, out)
    assert message in err and 1 == len(err.splitlines())


def test_an_id_that_is_unknown_is_told_in_one_line(capsys, booked):
    """As is that of a reversal, which names the one that is meant."""
    booked.ledger.reverse(ID, "a test question", "me")
    unknown = run(capsys, "ledger", "recompute", "cmpl-7", *booked.keep())
    reversal = run(capsys, "ledger", "recompute", f"reversal-{ID}", *booked.keep())
    reversed_ = run(capsys, "ledger", "recompute", ID, *booked.keep())

    assert (1, "protoken: no response 'cmpl-7' is booked in this ledger\n") == (unknown[0], unknown[2])
    assert (1, True) == (reversal[0], f"is a reversal: recompute what it reverses, '{ID}'" in reversal[2])
    assert (0, True) == (reversed_[0], "its credit was reversed since" in reversed_[1])


def test_another_bundle_is_refused_by_name(capsys, booked, tmp_path):
    """Of another consortium, of other weights, and of the same weights with another manifest."""
    other = base_model("llama")
    several = updates(other, "ab")
    elsewhere = write_consortium(tmp_path / "other", other, several, name="other")
    weights = write_consortium(tmp_path / "weights", other, updates(other, "xyz"))
    manifest = booked.model.bundle.path / "consortium.json"
    forged = tmp_path / "forged"
    forged.symlink_to(booked.model.bundle.path)
    copied = tmp_path / "copied"
    copied.mkdir()
    for file in booked.model.bundle.path.iterdir():
        if file != manifest:
            (copied / file.name).symlink_to(file)
    (copied / manifest.name).write_text(manifest.read_text().replace('"Clinic"', '"Klinik"'))
    told = [run(capsys, "ledger", "recompute", ID, *booked.keep(), "--bundle", each) for each in
            (elsewhere, weights, copied, tmp_path / "none")]  # fmt: skip

    assert [1, 1, 1, 1] == [each[0] for each in told]
    for each, message in zip(
        told,
        ("is of consortium 'other', and", "holds model", "was published with its model", "a bundle?"),
        strict=True,
    ):
        assert message in each[2], each[2]
    assert 0 == run(capsys, "ledger", "recompute", ID, *booked.keep(), "--bundle", forged)[0]


def test_a_bundle_that_was_published_nowhere_must_be_named(capsys, booked):
    """A ledger that has no publication of the model says so; the bundle's own hash is enough then."""
    spoil(booked.folder, "UPDATE events SET kind = 'bundle.withdrawn', document = '{\"publication\": 99}' "
          "WHERE kind = 'bundle.published'")  # fmt: skip
    lacking = run(capsys, "ledger", "recompute", ID, *booked.keep())
    named = run(capsys, "ledger", "recompute", ID, *booked.keep(), "--bundle", booked.model.bundle.path)

    assert (1, 0) == (lacking[0], named[0])
    assert "was published in this ledger: name its folder by --bundle" in lacking[2]


def test_of_two_consortia_in_one_ledger_each_is_found(capsys, booked, tmp_path):
    """The bundle is that of the receipt's own model."""
    base = base_model("qwen2")
    other = FederatedModel.load(write_consortium(tmp_path / "other", base, updates(base, "ab"), name="other"))
    publish_setting(booked.ledger, other.bundle)
    second = World(booked.folder, other, booked.ledger)
    second.book(second.attributed(PROMPT, second.ids(TEXT)), ID.replace("a", "d"))

    first = run(capsys, "ledger", "recompute", ID, *booked.keep(), "--json")
    again = run(capsys, "ledger", "recompute", ID.replace("a", "d"), *second.keep(), "--json")
    assert (0, 0) == (first[0], again[0])
    assert [str(booked.model.bundle.path), str(other.bundle.path)] == [
        json.loads(each[1])["bundle"] for each in (first, again)
    ]


@pytest.mark.parametrize(
    ("booked_text", "end", "kept", "request_", "marks"),
    [
        (TEXT, (END,), TEXT, {}, {}),
        (TEXT, (), TEXT + "\n", {}, {}),
        ("", (END,), "", {}, {}),
        (TEXT + STOP, (), TEXT, {"stop": ["!", STOP]}, {}),
        (TEXT, (), TEXT + " and on", {}, RECOVERED),
        (TEXT, (), TEXT, {}, {"cut": True, "delivered": 17}),
        (TEXT, (), TEXT, {"prompt": [1, 2, 3]}, {}),
    ],
    ids=["its end token", "an editor's line break", "no text", "a stop string", "recovered", "cut", "ids of a prompt"],
)
def test_however_it_ended_it_is_recomputed(capsys, world, booked_text, end, kept, request_, marks):
    """What is in the tokens and not in the text is found again, an end token or a stop string, and the reverse."""
    token_ids = (*world.ids(booked_text), *end)
    if "prompt" in request_:
        generation = forced_generation(world.model, request_["prompt"], token_ids)
        world.book(attribute(world.model, generation), marks=marks)
    else:
        world.book(world.attributed(PROMPT, token_ids), marks=marks)

    assert (0, "") == run(capsys, "ledger", "recompute", ID, *world.keep(kept, **request_))[::2]


def test_more_than_was_delivered_is_in_no_text(capsys, world):
    """A response that was cut has tokens that nobody was shown: it is refused, by how many were."""
    world.book(world.attributed(PROMPT, world.ids(TEXT)), marks={"cut": True, "delivered": 5})
    code, _, err = run(capsys, "ledger", "recompute", ID, *world.keep(TEXT[:5]))

    assert 1 == code
    assert "which was cut before its end: the 5 that were delivered are not all that was generated" in err


def test_what_was_not_attributed_is_refused_by_name(capsys, world):
    """What waits as pending, what could not be scored, what `paper` or another version made."""
    progress = ProgressRecord(ID, "0123456789ab", 1, world.model.name, world.model.global_sha256, (1,), (5, 6), 0.0, 1)
    unmeasured = SamplingRule(1, bytes(32))
    response = world.attributed(PROMPT, world.ids(TEXT))
    names = [ID.replace("a", letter) for letter in "1234"]
    while unmeasured.is_measured(names[0]):
        names[0] += "0"
    world.ledger.append(unscored_receipt(replace(progress, response_id=names[0]), unmeasured, ""))
    everything = SamplingRule()
    world.ledger.append(unscored_receipt(replace(progress, response_id=names[1]), everything, "attribution failed: X"))
    world.book(response, names[2], method="paper")
    world.book(response, names[3], version="1")
    told = [run(capsys, "ledger", "recompute", name, *world.keep()) for name in names]

    assert [1] * 4 == [each[0] for each in told]
    for each, message in zip(
        told,
        ("was not measured: its credit is settled with its period", "was never attributed (attribution failed: X)",
         "attributed by 'paper', for which no bound was measured", "by version 1 of the rule, and this protoken has"),
        strict=True,
    ):  # fmt: skip
        assert message in each[2], each[2]


def test_it_is_scored_in_the_numbers_that_it_was_booked_in(capsys, world):
    """In bfloat16 within a bound of its own; in float16, for which none was measured, not at all."""
    half = World(world.folder, FederatedModel.load(world.model.bundle.path, dtype="bfloat16"), world.ledger)
    response = half.attributed(PROMPT, world.ids(TEXT))
    half.book(response)
    half.book(replace(response, settings={**response.settings, "dtype": "float16"}), ID.replace("a", "c"))
    code, out, _ = run(capsys, "ledger", "recompute", ID, *world.keep(), "--json")
    refused = run(capsys, "ledger", "recompute", ID.replace("a", "c"), *world.keep())

    assert (0, str(CREDIT_BOUND["bfloat16"] * len(TEXT))) == (code, json.loads(out)["credit"]["bound"])
    assert (1, True) == (refused[0], "was scored in float16, for which no bound was measured" in refused[2])


def test_each_of_several_choices_is_its_own_response(capsys, world):
    """The second has its own id, receipt and text, and is found in the answer by its place."""
    second = f"{ID}-1"
    world.book(world.attributed(PROMPT, world.ids("first")), ID)
    world.book(world.attributed(PROMPT, (*world.ids("second"), END)), second)
    choices = [{"index": 1, "text": "second"}, {"index": 0, "text": "first"}]
    options = [*world.keep(None, n=2), *world.keep_answer(choices)]
    both = [run(capsys, "ledger", "recompute", name, *options)[0] for name in (ID, second)]
    alone = run(capsys, "ledger", "recompute", second, *world.keep(None), *options[-2:])

    assert [0, 0] == both
    assert (1, True) == (alone[0], "asks for 1 responses, and" in alone[2])


def test_a_chat_is_read_by_the_model_s_template(capsys, world):
    """From its messages, `developer` too; its ids are those that attribution by token tells."""
    messages = [{"role": "developer", "content": "be short"}, {"role": "user", "content": "which bell?"}]
    prompt_ids = world.model.encode_chat([{**messages[0], "role": "system"}, messages[1]])
    token_ids = (*world.ids(TEXT), END)
    world.book(attribute(world.model, forced_generation(world.model, prompt_ids, token_ids), token_level=True), CHAT_ID)
    (world.folder / "request.json").write_text(
        json.dumps({"model": world.model.name, "messages": messages, "temperature": 0, "attribution": "tokens"})
    )
    content = [{"token_id": each} for each in token_ids]
    message = {"role": "assistant", "content": "spelt otherwise", "attribution": {"content": content}}
    options = ["--request-file", world.folder / "request.json", "--ledger", world.url]
    code, out, _ = run(
        capsys, "ledger", "recompute", CHAT_ID, *options,
        *world.keep_answer([{"index": 0, "message": message}], CHAT_ID),
    )  # fmt: skip

    assert (0, True) == (code, "tokens: the ids that the answer tells" in out)


@pytest.mark.parametrize("nodes", [2, 5, 7])
def test_nodes_that_were_set_are_those_it_is_recomputed_with(capsys, world, nodes):
    """A receipt says how many, and not by which rule: seven may be of either."""
    world.book(world.attributed(PROMPT, world.ids(TEXT), effort=Effort(nodes)))

    assert 0 == run(capsys, "ledger", "recompute", ID, *world.keep())[0]


@pytest.mark.parametrize("nodes", [7, 15])
def test_nodes_that_it_took_are_those_it_is_recomputed_with(capsys, world, nodes):
    """Of the nested rules, whatever tolerance the service had."""
    world.book(world.attributed(PROMPT, world.ids(TEXT), effort=Effort(nodes, nested=True)))

    assert 0 == run(capsys, "ledger", "recompute", ID, *world.keep())[0]


def test_a_text_that_the_service_kept_will_do(capsys, booked):
    """Where its folder of texts has it: with its ids where the request asked for attribution of tokens."""
    texts = Texts(booked.folder / "texts", 1000.0)
    credits_ = tuple(TokenCredit("", each, {}, {}, 1.0) for each in booked.ids(TEXT))
    lacking = run(capsys, "ledger", "recompute", ID, *booked.keep(None), "--texts", booked.folder / "texts")
    for tokens in ((), credits_):
        texts.keep(KeptText(ID, "shop", booked.model.name, 0, TEXT, {}, 1.0, tokens))
        code, out, _ = run(capsys, "ledger", "recompute", ID, *booked.keep(None), "--texts", booked.folder / "texts")

        assert (0, bool(tokens)) == (code, "the ids that the answer tells" in out)
    assert (1, True) == (lacking[0], f"no text of '{ID}' is kept in" in lacking[2])


def test_the_bundle_of_the_settings_is_taken_where_it_is_the_one(capsys, booked, monkeypatch, tmp_path):
    """A service may serve a later round: then the one that was booked comes from where it was published."""
    other = base_model("llama")
    later = write_consortium(tmp_path / "later", other, updates(other, "xyz"))
    moved = tmp_path / "moved"
    moved.symlink_to(booked.model.bundle.path)
    told = []
    for place in (later, moved):
        monkeypatch.setenv("PROTOKEN_BUNDLE", str(place))
        told.append(run(capsys, "ledger", "recompute", ID, *booked.keep(), "--json"))

    assert [0, 0] == [each[0] for each in told]
    assert [str(booked.model.bundle.path), str(moved)] == [json.loads(each[1])["bundle"] for each in told]


def test_one_text_is_given_one_way(capsys, booked):
    """Both an answer and a text, or neither, is wrong usage."""
    both = run(capsys, "ledger", "recompute", ID, *booked.keep(), *booked.keep_answer([]))
    neither = run(capsys, "ledger", "recompute", ID, *booked.keep(None))

    assert (2, 2) == (both[0], neither[0])


def test_a_bundle_that_was_altered_is_refused(capsys, booked, tmp_path):
    """Every file of it is held against its hash before anything is scored; the one that differs is named."""
    copied = tmp_path / "copied"
    shutil.copytree(booked.model.bundle.path, copied)
    file = copied / next(client.path for client in booked.model.manifest.clients)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    code, _, err = run(capsys, "ledger", "recompute", ID, *booked.keep(), "--bundle", copied)

    assert (1, True) == (code, f"{file}: differs from the manifest's hash" in err)
