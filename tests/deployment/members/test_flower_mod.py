"""A Flower client signs what it sends, and the recorder on the server keeps a statement that holds."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from attribution.errors import RoundsError
from attribution.rounds.documents import Member
from attribution.rounds.flower import record_rounds
from attribution.rounds.reading import read_rounds
from deployment.members.flower import require_signature, sign_updates
from deployment.members.own_updates import own_updates
from deployment.members.recorded_signatures import require_signed
from rewards.errors import SignatureError
from rewards.signing.keys import SigningKey
from tests.attribution.rounds.flower_fakes import (
    Content,
    FedAvg,
    Grid,
    Message,
    Metadata,
    pem,
    record,
    ssh,
    trained,
)
from tests.deployment.members.signed_rounds import KEYS, manifest_of

CLIENTS = ("north", "south")
MODEL = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}


@dataclass
class _Reply(Content):
    """Content that a mod adds a record to, as a RecordDict is."""

    def __setitem__(self, name, value):
        self.config_records[name] = value


class ConfigRecord(dict):
    """A record of settings."""


@dataclass
class _Metadata(Metadata):
    message_type: str = "train"


@dataclass
class _Order(Message):
    """What the server asks, or the answer to that."""

    metadata: _Metadata = field(default_factory=lambda: _Metadata(0))


@dataclass
class Context:
    """What a node knows."""

    node_config: dict


def signing_node(client, change, config):
    """A node whose client app has the mod."""
    train, mod = trained(change), sign_updates()

    if config is None:
        return pem(client), train

    def app(message, _context):
        content = train(message)
        return _Order(_Metadata(0), _Reply(content.array_records, content.metric_records, content.config_records))

    def answer(message):
        asked = {"config": ConfigRecord({**message.content.config_records["config"], "lr": 0.1})}
        order = _Order(_Metadata(1), Content(message.content.array_records, {}, asked))
        return mod(order, Context(config), app).content

    return pem(client), answer


@pytest.fixture
def configs(tmp_path):
    """The configuration of each client's node, with its own key and folder."""
    made = {}
    for client in CLIENTS:
        KEYS[client].save(tmp_path / f"{client}.key")
        made[client] = {
            "protoken-key": str(tmp_path / f"{client}.key"),
            "protoken-consortium": "hospitals",
            "protoken-client": client,
            "protoken-sent": str(tmp_path / client),
        }
    return made


def run(folder: Path, configs, rounds=1, start=MODEL, admit=require_signature):
    """Rounds of a recorded strategy over two nodes."""
    nodes = {number: signing_node(client, number, configs[client]) for number, client in enumerate(CLIENTS, start=1)}
    members = [
        Member(client=client, name=client, node_public_key=ssh(client), signing_key=KEYS[client].public.encode())
        for client in CLIENTS
    ]
    strategy = record_rounds(FedAvg(), folder=folder, consortium="hospitals", members=members, admit=admit)
    strategy.start(Grid(nodes), record(start), rounds)
    return read_rounds(folder)


def test_what_a_client_signs_is_what_is_recorded(tmp_path, configs):
    """Over two rounds: the statements hold for what the server recorded, and are those that the clients kept."""
    recorded = run(tmp_path / "rounds", configs, rounds=2)
    require_signed(recorded, unsigned=False)
    for client in CLIENTS:
        kept = {file.name: file.read_text().strip() for file in (tmp_path / client).iterdir()}
        found = own_updates(manifest_of(recorded), client, KEYS[client].public, kept)

        assert [(1, "credited"), (2, "credited")] == [(each.round, each.standing) for each in found]


def test_what_is_signed_after_a_run_was_gone_on_with_is_of_the_recorded_round(tmp_path, configs):
    """Flower counts from 1 again in each run; the statements count on with the folder, and each holds once."""
    first = run(tmp_path / "rounds", configs)
    recorded = run(tmp_path / "rounds", configs, rounds=2, start=load_file(first.global_path(1)))

    require_signed(recorded, unsigned=False)
    assert 3 == len(recorded.rounds)
    assert ["round-0001", "round-0002", "round-0003"] == sorted(
        file.name.rpartition("-")[0] for file in (tmp_path / "north").iterdir()
    )


def test_an_error_is_not_signed(tmp_path, configs):
    """Nor what is no training: the mod hands on what it is given."""
    failed = _Order(_Metadata(0), error="no memory")
    order = _Order(_Metadata(1), Content({"arrays": record(MODEL)}, {}, {"config": ConfigRecord({"server-round": 1})}))
    evaluated = _Order(_Metadata(1, message_type="evaluate"), Content())

    assert failed is sign_updates()(order, Context(configs["north"]), lambda _message, _context: failed)
    assert evaluated is sign_updates()(evaluated, Context({}), lambda message, _context: message)
    assert [] == [*(tmp_path / "north").iterdir()]


def never(_message, _context):
    raise AssertionError("it trained")


def test_a_round_without_a_number_is_not_trained(configs):
    """A statement that says of no round would hold for all."""
    order = _Order(_Metadata(1), Content({"arrays": record(MODEL)}, {}, {"config": ConfigRecord()}))

    with pytest.raises(RoundsError, match="says no 'server-round'"):
        sign_updates()(order, Context(configs["north"]), never)


@pytest.mark.parametrize("name", ["protoken-key", "protoken-consortium", "protoken-client", "protoken-sent"])
def test_a_node_that_does_not_say_whose_it_is_trains_nothing(name, configs):
    """What is missing is named, before an hour of training is lost."""
    order = _Order(_Metadata(1), Content({"arrays": record(MODEL)}, {}, {"config": ConfigRecord({"server-round": 1})}))
    config = {other: value for other, value in configs["north"].items() if other != name}

    with pytest.raises(RoundsError, match=f"no text '{name}'"):
        sign_updates()(order, Context(config), never)


def test_a_key_that_is_none_is_refused_before_training(tmp_path, configs):
    """And not when an update is there to be signed."""
    (tmp_path / "none").write_text("none")
    order = _Order(_Metadata(1), Content({"arrays": record(MODEL)}, {}, {"config": ConfigRecord({"server-round": 1})}))

    with pytest.raises(SignatureError, match="none"):
        sign_updates()(order, Context(configs["north"] | {"protoken-key": str(tmp_path / "none")}), never)


def test_another_members_key_does_not_pass(tmp_path, configs):
    """Where nothing looked at it before, whoever signs with a key of its own for another is refused at import."""
    SigningKey(KEYS["north"].name, bytes(32)).save(tmp_path / "other.key")
    configs["north"]["protoken-key"] = str(tmp_path / "other.key")

    with pytest.raises(SignatureError, match=r"client 'north': statement: .*not among the known keys"):
        require_signed(run(tmp_path / "rounds", configs, admit=lambda *_: None), unsigned=False)


@pytest.mark.parametrize(
    ("slip", "reason"),
    [
        ({"protoken-consortium": "hospital"}, 'it was signed for consortium "hospital", and this is "hospitals"'),
        ({"protoken-client": "south"}, 'it was signed for client "south", and this is "north"'),
        ({"protoken-key": "other.key"}, "not among the known keys"),
        (None, "its update is not signed, and it has a signing_key"),
    ],
)
def test_what_its_member_did_not_sign_so_stops_nobody_else(tmp_path, configs, slip, reason):
    """It is neither averaged nor recorded, and is named; what the others sent is imported."""
    SigningKey(KEYS["north"].name, bytes(32)).save(tmp_path / "other.key")
    if slip is None:
        configs["north"] = None
    else:
        own = {name: str(tmp_path / value) if name == "protoken-key" else value for name, value in slip.items()}
        configs["north"] |= own
    recorded = run(tmp_path / "rounds", configs, rounds=2)
    require_signed(recorded, unsigned=False)
    files = [file.name for file in (tmp_path / "rounds" / "round-0001").iterdir()]

    assert [["south"], ["south"]] == [[update.client for update in each.updates] for each in recorded.rounds]
    assert [["north"], ["north"]] == [[each.client for each in one.missing] for one in recorded.rounds]
    assert reason in recorded.rounds[0].missing[0].reason
    assert ["global.safetensors", "round.json", "update-south.safetensors"] == sorted(files)
    sent, result = (load_file(path)["a"] for path in (recorded.update_path(1, "south"), recorded.global_path(1)))
    assert np.array_equal(sent, result)


def test_members_that_sign_are_not_recorded_unseen(tmp_path, configs):
    """Else the first slip of one would be told at import, when it is in everybody's model."""
    with pytest.raises(RoundsError, match=r"members: 'north': has a signing_key, .* give admit=require_signature"):
        run(tmp_path / "rounds", configs, admit=None)

    assert not (tmp_path / "rounds").exists()
