"""The recorder for Flower: what is averaged is recorded and what is recorded is averaged, by member and by key."""

import json
import logging
import re
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from attribution.errors import RoundsError
from attribution.rounds.documents import Member
from attribution.rounds.flower import record_rounds
from attribution.rounds.flower_messages import record_tensors
from attribution.rounds.flower_strategies import REASONS, require_average
from attribution.rounds.hashing import tensors_sha256
from attribution.rounds.reading import RecordedRounds, read_rounds
from tests.attribution.rounds.federations import tensors
from tests.attribution.rounds.flower_fakes import (
    Array,
    Content,
    FedAvg,
    Grid,
    array,
    numbers,
    pem,
    record,
    ssh,
    trained,
)

MEMBERS = tuple(
    Member(client=client, name=client.title(), node_public_key=ssh(client, "someone@somewhere"))
    for client in ("north", "south", "west")
)
NODES = {
    11: (pem("north"), trained(1.0, 40, "{signed}")),
    12: (pem("south"), trained(3.0, 20)),
    13: (pem("west"), trained(5.0, 20)),
}


def run(folder: Path, nodes: dict = NODES, rounds: int = 1, strategy: FedAvg | None = None, **options) -> FedAvg:
    """Train some rounds, recorded."""
    options = {"consortium": "hospitals", "members": MEMBERS} | options
    strategy = record_rounds(strategy or FedAvg(), folder=folder, **options)
    strategy.start(Grid(NODES | nodes), record(tensors(0.0)), rounds)
    return strategy


def reasons(recorded: RecordedRounds, number: int = 1) -> dict[str | None, tuple[str | None, str]]:
    """Who is missing in a round: by client, or by node where it is no client's."""
    return {each.client or each.node: (each.node, each.reason) for each in recorded.rounds[number - 1].missing}


def test_rounds_are_recorded_by_member(tmp_path):
    """Each update under its member, with the weight and the statement that came; the average is what was served."""
    run(tmp_path, rounds=3)
    recorded = read_rounds(tmp_path)
    first = recorded.rounds[0]

    assert 3 == len(recorded.rounds)
    assert [("north", 40.0, "{signed}"), ("south", 20.0, None), ("west", 20.0, None)] == [
        (update.client, update.weight, update.statement) for update in first.updates
    ]
    assert tensors_sha256(tensors(1.0)) == first.updates[0].sha256
    assert 2.5 == load_file(recorded.global_path(1))["a"][0, 0]
    assert 5.5 == load_file(recorded.update_path(2, "south"))["a"][0, 0]
    assert () == first.missing
    assert ssh("north") == recorded.federation.members[0].node_public_key


def test_members_come_from_a_file(tmp_path):
    """A list of members, as somebody writes it by hand, and PEFT's configuration beside it."""
    (tmp_path / "members.json").write_text(
        json.dumps(
            [{"client": each, "name": each, "node_public_key": ssh(each)} for each in ("north", "south", "west")]
        )
    )
    run(
        tmp_path / "rounds", members=tmp_path / "members.json", adapter={"r": 8, "target_modules": {"v_proj", "q_proj"}}
    )

    assert {"r": 8, "target_modules": ["q_proj", "v_proj"]} == read_rounds(tmp_path / "rounds").federation.adapter


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[{"client": "north", "name": "N", "node_public_key": "ssh-nonsense"}]',
            "'north': node_public_key: is no public",
        ),
        ('[{"client": "north", "name": "N"}]', "members: 'north': each needs the node_public_key of its SuperNode"),
        (
            json.dumps([{"client": "north", "name": "N", "node_public_key": ssh("north"), "node": "1"}]),
            "each needs the",
        ),
        ('[{"client": "commons", "name": "N", "node": "1"}]', "members.json: 0.client"),
        ('{"client": "north"}', "members.json: document"),
        ("[]", "members"),
        (
            json.dumps([{"client": each, "name": each, "node_public_key": ssh("north", each)} for each in ("a", "b")]),
            "is given to two members",
        ),
    ],
)
def test_members_that_cannot_be_told_apart_are_refused(text, words, tmp_path):
    """Before training begins, by name."""
    (tmp_path / "members.json").write_text(text)
    with pytest.raises(RoundsError) as refused:
        run(tmp_path / "rounds", members=tmp_path / "members.json")

    assert words in str(refused.value)


def test_a_node_that_is_no_members_is_asked_nothing(tmp_path):
    """Its work would be nobody's: it is left out before it trains, and named."""
    strategy = record_rounds(FedAvg(), folder=tmp_path, consortium="hospitals", members=MEMBERS)
    grid = Grid(NODES | {14: (pem("mars"), trained(9.0)), 15: (b"no key at all", trained(9.0))})
    strategy.start(grid, record(tensors(0.0)), 1)

    assert [11, 12, 13] == grid.sent
    assert dict.fromkeys(("14", "15"), "its public key is none of the members'") == {
        node: reason for node, (_, reason) in reasons(read_rounds(tmp_path)).items()
    }


def test_without_any_member_nothing_is_trained(tmp_path):
    """That is a slip in the members' file, and no round."""
    with pytest.raises(RoundsError, match="no node of it is a member's: its public key is none of the members'"):
        run(tmp_path, members=[Member(client="x", name="X", node_public_key=ssh("mars"))])


def test_two_messages_to_one_member_are_refused(tmp_path):
    """Of two nodes of one member each would be paid: no member can bring that about, so it stops the run."""

    class Twice(FedAvg):
        def configure_train(self, *arguments):
            return super().configure_train(*arguments) + super().configure_train(*arguments)

    with pytest.raises(RoundsError, match="two messages of one round go to 'north'"):
        run(tmp_path, strategy=Twice())


def test_who_fails_or_falls_silent_is_missing(tmp_path):
    """An error is named with its reason, silence as such, and the round goes on with the others."""
    strategy = run(tmp_path, {11: (pem("north"), lambda _: "it\nburnt"), 12: (pem("south"), lambda _: None)})
    recorded = read_rounds(tmp_path)

    assert {"north": ("11", "error: it burnt"), "south": ("12", "no answer within the time of the round")} == reasons(
        recorded
    )
    assert ["west"] == [update.client for update in recorded.rounds[0].updates]
    assert 1 == strategy.errors, "the strategy counts errors as ever"


def _set_metric(value: object) -> object:
    return lambda content: content.metric_records["metrics"].update({"num-examples": value})


def _set_array(name: str, value: Array) -> object:
    return lambda content: content.array_records["arrays"].update({name: value})


BAD = {
    "no arrays": (lambda content: content.array_records.clear(), "sent 0 records of arrays; one is wanted"),
    "two records": (lambda content: content.array_records.update(more={}), "sent 2 records of arrays; one is wanted"),
    "no metrics": (lambda content: content.metric_records.clear(), "sent 0 records of metrics; one is wanted"),
    "no weight": (lambda content: content.metric_records["metrics"].clear(), "its weight 'num-examples' is None"),
    "weight 0": (_set_metric(0), "its weight 'num-examples' is 0; a finite number above 0 is wanted"),
    "weight below 0": (_set_metric(-5), "its weight 'num-examples' is -5"),
    "weight NaN": (_set_metric(float("nan")), "its weight 'num-examples' is nan"),
    "weight infinite": (_set_metric(float("inf")), "its weight 'num-examples' is inf"),
    "weight true": (_set_metric(True), "its weight 'num-examples' is True"),
    "weight a list": (_set_metric([1.0] * 1000), "its weight 'num-examples' is [1.0, "),
    "NaN": (_set_array("b", array(np.full(4, np.nan, np.float16))), "tensor 'b' holds NaN or infinity"),
    "a tensor more": (_set_array("c", array(np.ones(1))), "tensor 'c' is not in the model"),
    "a tensor less": (lambda content: content.array_records["arrays"].pop("a"), "tensor 'a' is missing"),
    "other sizes": (_set_array("b", array(np.ones(5))), "tensor 'b' has the sizes [5], and in the model [4]"),
    "no numpy": (_set_array("b", Array("x", "pickle", b"")), "tensor 'b': is sent as pickle, not as numpy.ndarray"),
    "empty": (_set_array("b", Array("x", "numpy.ndarray", b"")), "tensor 'b': is not in NumPy's form"),
    "cut": (_set_array("b", Array("x", "numpy.ndarray", array(np.ones(4)).data[:-1])), "is not in NumPy's form"),
    "another version": (
        _set_array("b", Array("x", "numpy.ndarray", b"\x93NUMPY\x09\x00" + b" " * 99)), "is not in NumPy's form"
    ),
    "objects": (
        _set_array("b", Array("x", "numpy.ndarray", array(np.ones(4)).data.replace(b"'<f8'", b"'|O' "))),
        "holds objects",
    ),
    "weight next to nothing": (_set_metric(5e-324), "its weight 'num-examples' is 5e-324; wanted is one from 1e-100"),
    "weight beyond sums": (_set_metric(1.7e308), "its weight 'num-examples' is 1.7e+308; wanted is one from 1e-100"),
    "beyond 32 bits": (_set_array("b", array(np.full(4, -1e39))), "tensor 'b' holds NaN or infinity, in 32 bits"),
    "another name": (
        lambda content: content.array_records.update(evil=content.array_records.pop("arrays")),
        "its record of arrays is called ('evil',), and most members' ('arrays',)",
    ),
    "another metric": (
        lambda content: content.metric_records["metrics"].update(more=1.0), "its metrics, with how many numbers each"
    ),
    "a metric as a list": (lambda content: content.metric_records["metrics"].update(loss=[1.0]), "its metrics, with"),
    "whole numbers": (_set_array("b", array(np.ones(4, np.int64))), "of other numbers than floating-point ones"),
    "texts": (_set_array("b", array(np.array(["a"] * 4))), "tensor 'b': holds str"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_credited_is_not_averaged_either(case, tmp_path):
    """It is left out of the record and of the model alike, and named with the reason."""
    alter, words = BAD[case]
    run(tmp_path, {11: (pem("north"), trained(1.0, 40, alter=alter))})
    recorded = read_rounds(tmp_path)

    assert ["north"] == [*reasons(recorded)]
    assert words in reasons(recorded)["north"][1]
    assert 4.0 == load_file(recorded.global_path(1))["a"][0, 0], "the average of the other two"


def test_whoever_was_not_asked_is_not_averaged(tmp_path):
    """A reply to nothing, and a second reply to one message, are nobody's."""

    class Doubled(Grid):
        def send_and_receive(self, messages):
            replies = super().send_and_receive(messages)
            return [*replies, replies[0]]

    strategy = record_rounds(FedAvg(), folder=tmp_path, consortium="hospitals", members=MEMBERS)
    strategy.start(Doubled(NODES), record(tensors(0.0)), 1)

    assert {"11": ("11", "it answered what it was not asked")} == reasons(read_rounds(tmp_path))
    assert 2.5 == load_file(read_rounds(tmp_path).global_path(1))["a"][0, 0]


@pytest.mark.parametrize("statement", ["x" * 20_000, 5, b"x"])
def test_a_statement_that_is_none_is_not_kept(statement, tmp_path, caplog):
    """The update is; whoever imports it sees that it is unsigned."""
    with caplog.at_level(logging.WARNING):
        run(tmp_path, {11: (pem("north"), trained(1.0, 40, statement))})

    assert None is read_rounds(tmp_path).rounds[0].updates[0].statement
    assert "north is recorded without a statement" in caplog.text


def test_a_round_of_which_nothing_came_says_so(tmp_path):
    """All failed, or the strategy declined: the model is what it was, and everyone is named."""

    class Declines(FedAvg):
        def aggregate_train(self, server_round, replies):
            return None, None

    run(tmp_path, {11: (pem("north"), lambda _: "it burnt")}, 2, Declines())
    recorded = read_rounds(tmp_path)

    assert [(), ()] == [each.updates for each in recorded.rounds]
    assert ["error: it burnt", *["the strategy made nothing of the round"] * 2] == sorted(
        reason for _, reason in reasons(recorded).values()
    )


def test_a_strategy_that_fails_leaves_no_round(tmp_path):
    """What it raises is raised, and of the round nothing is left."""

    class Fails(FedAvg):
        def aggregate_train(self, server_round, replies):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(tmp_path, strategy=Fails())

    assert {"rounds.json", "round-0000", ".lock"} == {path.name for path in tmp_path.iterdir()}


def test_updates_are_written_before_the_strategy_has_them(tmp_path):
    """Some strategies empty the replies as they average them."""

    class Empties(FedAvg):
        def aggregate_train(self, server_round, replies):
            result = super().aggregate_train(server_round, replies)
            for reply in replies:
                reply.content.array_records["arrays"].clear()
            return result

    run(tmp_path, strategy=Empties())

    assert 3 == len(read_rounds(tmp_path).rounds[0].updates)


def test_a_strategy_within_a_strategy_says_the_weight(tmp_path):
    """Noise that clients add themselves wraps a strategy, and the weight is that of the inner one."""

    class DifferentialPrivacyClientSideFixedClipping:
        def __init__(self, strategy):
            self.strategy = strategy
            self.configure_train, self.aggregate_train = strategy.configure_train, strategy.aggregate_train
            self.configure_evaluate = strategy.configure_evaluate

    strategy = DifferentialPrivacyClientSideFixedClipping(FedAvg())
    recorded = record_rounds(strategy, folder=tmp_path, consortium="hospitals", members=MEMBERS)
    FedAvg.start(recorded, Grid(NODES), record(tensors(0.0)), 1)

    assert strategy is recorded
    assert 3 == len(read_rounds(tmp_path).rounds[0].updates)


def _named(name: str, *bases: type, **fields: object) -> object:
    return type(name, bases, fields)()


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (lambda: _named("SecAggPlusWorkflow"), "SecAggPlusWorkflow cannot be recorded: secure aggregation hides"),
        (lambda: _named("SecAggWorkflow"), "secure aggregation hides what each member sent"),
        (lambda: _named("DifferentialPrivacyServerSideFixedClipping", FedAvg), "it adds noise on the server"),
        (lambda: _named("DifferentialPrivacyServerSideAdaptiveClipping", FedAvg), "it adds noise on the server"),
        (lambda: _named("Mine", FedAvg, strategy=_named("Bulyan", FedAvg)), "Bulyan cannot be recorded: it takes some"),
        (lambda: _named("Mine", type("MultiKrum", (FedAvg,), {})), "it takes some updates and leaves others out"),
        (lambda: _named("FedMedian", FedAvg), "it takes medians"),
        (lambda: _named("FedTrimmedAvg", FedAvg), "leaves others out"),
        (lambda: _named("QFedAvg", FedAvg), "it weighs updates by their losses"),
        (lambda: _named("FedXgbBagging", FedAvg), "it joins trees"),
        (lambda: _named("FedXgbCyclic", FedAvg), "it joins trees"),
        (lambda: _named("Old", configure_fit=print), "it has no configure_train, so it is no strategy of Flower's"),
        (lambda: _named("Own", FedAvg, weighted_by_key=None), "it has no weighted_by_key"),
    ],
)  # fmt: skip
def test_strategies_that_do_not_average_are_refused(strategy, words, tmp_path):
    """By name and with the reason, and no folder is made."""
    with pytest.raises(RoundsError) as refused:
        record_rounds(strategy(), folder=tmp_path / "rounds", consortium="hospitals", members=MEMBERS)

    assert words in str(refused.value)
    assert not (tmp_path / "rounds").exists()


def test_the_readme_says_which_federations_are_run(tmp_path):
    """Its first paragraph names strategies that are recorded, and others that are refused, as the code has them."""
    words = " ".join((Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8").split("```")[0].split())
    runs, _, refuses = words.partition("Not for ")
    taken = re.findall(r"\bFed[A-Z]\w+", runs)
    refused = re.findall(r"\b(?:Fed[A-Z]\w+|SecAgg|MultiKrum|Bulyan|QFedAvg)", refuses)

    assert {"FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedAdagrad", "FedYogi"} == set(taken)
    assert 7 == len(refused)
    for name in taken:
        require_average(_named(name, FedAvg))
    for name in refused:
        kinds = [kind for kind in REASONS if kind.startswith(name)]
        assert kinds, name
        for kind in kinds:
            with pytest.raises(RoundsError, match=f"{kind} cannot be recorded"):
                require_average(_named(kind, FedAvg))


def test_messages_that_ask_for_masks_are_refused(tmp_path):
    """Whatever the strategy is called: a client that masks what it sends cannot be credited for it."""

    class Own(FedAvg):
        def configure_train(self, *arguments):
            messages = super().configure_train(*arguments)
            messages[0].content.config_records["secaggplus_configs"] = {"stage": "setup"}
            return messages

    with pytest.raises(RoundsError, match="secure aggregation hides what each member sent"):
        run(tmp_path, strategy=Own())


def test_a_change_around_the_recorded_strategy_is_noticed(tmp_path):
    """Noise that is added to what the recorded strategy returned is seen before anything goes on from it."""

    class Wraps(FedAvg):
        def __init__(self, inner):
            super().__init__()
            self.configure_train, self.configure_evaluate = inner.configure_train, inner.configure_evaluate
            self.inner = inner

        def aggregate_train(self, server_round, replies):
            arrays, metrics = self.inner.aggregate_train(server_round, replies)
            return record({name: each + each.dtype.type(1) for name, each in numbers(arrays).items()}), metrics

    inner = record_rounds(FedAvg(), folder=tmp_path, consortium="hospitals", members=MEMBERS)
    with pytest.raises(RoundsError, match=r"wrong base: round 2 .* as noise on the server does"):
        Wraps(inner).start(Grid(NODES), record(tensors(0.0)), 1)


def test_another_model_than_was_asked_for_is_refused(tmp_path):
    """A strategy that returns other tensors is not one whose rounds add up."""

    class Other(FedAvg):
        def aggregate_train(self, server_round, replies):
            return record({"z": np.ones(1)}), None

    with pytest.raises(RoundsError, match="returned another model than it was given: tensor 'a' is missing"):
        run(tmp_path, strategy=Other())


def test_a_run_goes_on_from_the_last_round(tmp_path):
    """Flower counts its rounds from 1 again, the folder goes on counting; from another model it does not go on."""
    run(tmp_path)
    again = record_rounds(FedAvg(), folder=tmp_path, consortium="hospitals", members=MEMBERS)
    with pytest.raises(RoundsError, match="wrong base: round 2 would begin with another model than round-0001/"):
        again.start(Grid(NODES), record(tensors(0.0)), 1)
    again.start(Grid(NODES), record(load_file(read_rounds(tmp_path).global_path(1))), 1)

    assert [1, 2] == [each.round for each in read_rounds(tmp_path).rounds]


def test_without_keys_members_are_told_apart_by_nodes(tmp_path):
    """In the simulation runtime keys are random bytes: there, whoever writes the server app gives the nodes."""
    members = [Member(client="north", name="N", node="11"), Member(client="south", name="S", node="12")]
    nodes = {number: (bytes(32), trained(1.0)) for number in (11, 12, 13)}
    run(tmp_path, nodes, members=members)
    recorded = read_rounds(tmp_path)

    assert ["north", "south"] == [update.client for update in recorded.rounds[0].updates]
    assert {"13": ("13", "its id is none of the members' nodes")} == reasons(recorded)


def test_bfloat16_is_kept_as_it_came():
    """NumPy forgets the name of the type, and Flower's record says it."""
    bits = np.array([[16256, 16384]], np.uint16)
    data = array(bits.view("V2")).data
    tensor = record_tensors({"x": Array("bfloat16", "numpy.ndarray", data)})["x"]

    assert ("BF16", (1, 2), bits.tobytes()) == (tensor.dtype, tensor.shape, tensor.little_endian().tobytes())
    with pytest.raises(RoundsError, match="tensor 'x': holds void16"):
        record_tensors({"x": Array("unknown", "numpy.ndarray", data)})


@pytest.mark.long
@settings(max_examples=500)
@given(st.data())
def test_whatever_a_member_sends_as_a_tensor_is_one_or_is_refused(data):
    """Bytes changed, cut off or put in anywhere within NumPy's form: no other error, and nothing is unpickled."""
    values = np.zeros((3, 4), data.draw(st.sampled_from(["<f4", "<i8", "V2"])))
    content = bytearray(array(values).data)
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    said = data.draw(st.sampled_from(["float32", "bfloat16", "object"]))
    with suppress(RoundsError):
        tensor = record_tensors({"x": Array(said, "numpy.ndarray", bytes(content))})["x"]
        assert tensor.little_endian().nbytes <= len(content)


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i8", "|b1"])
def test_arrays_of_any_layout_hash_as_what_they_are(layout, dtype):
    """Flower's form keeps the layout and the order of bytes that the sender had."""
    values = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=layout)

    assert tensors_sha256({"x": values}) == tensors_sha256(record_tensors({"x": array(values)}))


@pytest.mark.long
def test_updates_are_not_copied(tmp_path):
    """Recording three updates of 16 MiB takes less memory than one of them."""
    model = {"x": np.zeros(1 << 22, np.float32)}
    replies = Grid(NODES).send_and_receive(FedAvg().configure_train(1, record(model), {}, Grid(NODES)))
    average = record(model)

    class Given(FedAvg):
        def aggregate_train(self, server_round, replies):
            list(replies)
            return average, None

    strategy = record_rounds(Given(), folder=tmp_path, consortium="hospitals", members=MEMBERS)
    grid = Grid(NODES)
    for message in strategy.configure_train(1, record(model), {}, grid):
        message.metadata.message_id = next(
            reply.metadata.reply_to_message_id
            for reply in replies
            if reply.metadata.src_node_id == message.metadata.dst_node_id
        )
    tracemalloc.start()
    try:
        strategy.aggregate_train(1, replies)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert 3 == len(read_rounds(tmp_path).rounds[0].updates)
    assert most < 4 << 20


def test_content_is_that_of_flower():
    """The fake has the records that the recorder reads."""
    assert {"array_records", "metric_records", "config_records"} == set(vars(Content()))
