"""Rounds of one consortium in a replica: published while jobs run, taken back, and found for what the dead left."""

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution.attribute import attribute
from attribution.bundle.bundle import open_bundle
from attribution.importers.recorded_rounds import import_rounds
from attribution.model import FederatedModel
from attribution.teacher_forcing import generation_of
from deployment.errors import PartLostError, StartError
from deployment.health import watched_parts
from deployment.metrics.replica import ReplicaMetrics
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.recovery import Recovery
from deployment.replica.bundles import rollout
from deployment.replica.bundles.publication_index import PublishedBundles
from deployment.replica.bundles.publish import publish, publish_setting, roll_back
from deployment.replica.bundles.rollout import Rounds
from deployment.replica.bundles.served_round import ReplicaBooks, RoundLoader, ServedRound
from deployment.replica.messages import Finished, ModelCard
from deployment.replica.observer import SharedObserver
from deployment.settings import EngineSettings, Settings
from deployment.spool.records import ProgressRecord
from deployment.spool.spool import Spool
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys, put_in_force
from rewards.store import publications
from tests.attribution.consortia import base_model, lora_update, save_base, write_consortium
from tests.attribution.importers.recordings import ADAPTER, Recording, adapter_start
from tests.deployment.metrics.test_replica_series import Registered
from tests.deployment.replica.booking.test_booking_queue import leave
from tests.deployment.replica.test_worker import Caller, GatedBatch, Notes, job, worker_over
from tests.waiting import until

CONSORTIUM = "test"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two rounds of one consortium over one base, which answer differently; in the second a school has joined."""
    torch.set_num_threads(1)
    base = base_model("llama")
    written = []
    for number, clients in enumerate((("clinic", "bank"), ("clinic", "bank", "school")), start=1):
        updates = {name: lora_update(base, 10 * number + n, first_block=2) for n, name in enumerate(clients)}
        written.append(write_consortium(tmp_path_factory.mktemp("round"), base, updates, number=number))
    return written[0], written[1]


class Stage:
    """A replica without Ray: its rounds, its books, and what it loaded."""

    def __init__(self, folder: Path, own: Path, ledger: Ledger, consortium: str = CONSORTIUM) -> None:
        self.ledger = ledger
        self.spool = Spool(folder / "spool")
        self.bookings = BookingQueue(ledger, self.spool, lambda *_: None)
        self.gates: dict[Path, threading.Event] = {}
        self.loaded: list[Path] = []
        self.unservable: set[Path] = set()
        self.told: list[bool] = []
        self.models: dict[Path, weakref.ref[FederatedModel]] = {}
        self.notes = Notes()
        self._observer = SharedObserver(self.notes)
        self._books = ReplicaBooks(SamplingKeys(ledger.database), self.spool, self.bookings)
        self._published = PublishedBundles(ledger.database, consortium, [own])
        self._own = own
        self.rounds: Any = None
        self.recovery: Any = None

    def begin(self, **settings: Any) -> None:
        """Serve."""
        settings = {"poll_s": 0.02} | settings
        self.rounds = Rounds(self._published, self._own, self._load, self._books, self.told.append, **settings)
        self.recovery = Recovery(
            self.spool, self.bookings, self.ledger, self.rounds.knows, self.rounds.attribute, interval_s=0.05
        )

    def end(self) -> None:
        """Stop, as a replica does."""
        for gate in self.gates.values():
            gate.set()
        self.rounds.stop(30)
        self.recovery.close()
        self.bookings.close()
        self.spool.close()

    def ask(self, response_id: str, **changes: Any) -> Caller:
        """Ask whatever is served for a response that does not end by itself."""
        return Caller(self.rounds, job(response_id, logit_bias={2: -100.0}, **changes), self.ledger, look=False)

    def _load(self, folder: Path, *, serves: bool) -> ServedRound:
        if serves and folder in self.unservable:
            raise StartError("the engine goes on with the weights it was started with")
        self.loaded.append(folder)
        model = FederatedModel.load(folder)
        self.models[folder] = weakref.ref(model)
        gate = self.gates.setdefault(folder, threading.Event())
        gate.set()
        card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
        batch = GatedBatch(model, gate)
        part = self._observer.part()
        worker = worker_over(model, self.ledger, self.spool, self.bookings, part, batch=batch)
        return ServedRound(
            card, worker, folder, watched_parts.bundle("bundle", folder, open_bundle), serves, close=part.close
        )


@pytest.fixture
def ledger(tmp_path: Path, bundles: tuple[Path, Path]) -> Iterator[Ledger]:
    """A ledger in which the first round is what the service is set to serve."""
    url = f"sqlite:///{tmp_path}/rounds.db"
    Ledger.prepare(url)
    ledger = Ledger(url)
    publish_setting(ledger, open_bundle(bundles[0]))
    yield ledger
    ledger.close()


@pytest.fixture
def stage(tmp_path: Path, bundles: tuple[Path, Path], ledger: Ledger) -> Iterator[Stage]:
    """A replica of the first round that has not begun."""
    stage = Stage(tmp_path, bundles[0], ledger)
    yield stage
    if stage.rounds is not None:
        stage.end()


def sha(bundle: Path) -> str:
    return open_bundle(bundle).manifest.global_.sha256


def scores_by(bundle: Path, prompt: str, token_ids: tuple[int, ...]) -> dict[str, float]:
    """What the clients of a round earn of a response, computed apart."""
    model = FederatedModel.load(bundle)
    generation = generation_of(tuple(model.encode_text(prompt)), token_ids, 0.0)
    return dict(attribute(model, generation, method="credit", token_level=False).response_scores)


def served(stage: Stage, bundle: Path) -> None:
    """Wait until a round is served."""
    until(lambda: stage.rounds.card.global_sha256 == sha(bundle))


def test_a_publish_fails_no_request_and_receipts_name_the_round_that_answered(
    stage: Stage, bundles: tuple[Path, Path]
) -> None:
    """Jobs come without a pause before, while and after the second round is loaded; each is booked by its own round."""
    stage.begin()
    callers = [stage.ask("r0", prompt="tell 0")]
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    while stage.rounds.card.global_sha256 != sha(bundles[1]) or len(callers) < 4:
        callers.append(stage.ask(f"r{len(callers)}", prompt=f"tell {len(callers)}"))
        assert isinstance(callers[-1].end(), Finished)
    callers += [stage.ask(f"r{len(callers) + n}", prompt="tell me") for n in range(3)]
    ends = [caller.end() for caller in (callers[0], *callers[-3:])]
    until(lambda: stage.ledger.last_sequence() == len(callers))

    receipts = [stage.ledger.receipt(caller.job.response_id) for caller in callers]
    assert [Finished] * 4 == [type(end) for end in ends]
    assert sha(bundles[0]) == receipts[0].model_sha256
    assert [sha(bundles[1])] * 3 == [receipt.model_sha256 for receipt in receipts[-3:]]
    assert {"clinic", "bank"} == receipts[0].measurement["response_scores"].keys()
    assert {"clinic", "bank", "school"} == receipts[-1].measurement["response_scores"].keys()


def test_recorded_rounds_are_published_and_served_like_any_other(tmp_path: Path) -> None:
    """The bundle of two recorded rounds takes the place of that of the first: it answers, and each client is scored."""
    base, bundles = base_model("llama"), []
    reference = save_base(base, tmp_path / "base")
    recording = Recording(tmp_path / "recorded", ("north", "south"), adapter_start(base), adapter=ADAPTER)
    for number, weights in enumerate(({"north": 3, "south": 1}, {"north": 1}), start=1):
        recording.run(weights)
        bundles.append(import_rounds(recording.folder, reference, tmp_path / f"round-{number}").path)
    Ledger.prepare(f"sqlite:///{tmp_path}/ledger.db")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    publish_setting(ledger, open_bundle(bundles[0]))
    stage = Stage(tmp_path, bundles[0], ledger, "valley")
    stage.begin()
    begun = stage.ask("begun").end()
    publish(ledger, open_bundle(bundles[1]), "test")
    served(stage, bundles[1])
    after = stage.ask("after").end()
    until(lambda: ledger.last_sequence() == 2)
    receipts = [ledger.receipt(name) for name in ("begun", "after")]
    stage.end()
    ledger.close()

    assert [Finished] * 2 == [type(end) for end in (begun, after)]
    assert [sha(bundle) for bundle in bundles] == [receipt.model_sha256 for receipt in receipts if receipt]
    assert [{"north", "south"}] * 2 == [set(each.measurement["response_scores"]) for each in receipts if each]


def test_what_was_begun_ends_on_its_round_which_then_leaves_memory(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """A job in the middle and one that waits behind it end on the first round, whole; its model is let go then."""
    stage.begin()
    stage.gates[bundles[0]].clear()
    begun = [stage.ask(f"begun {n}", max_tokens=40) for n in range(6)]
    until(lambda: sum(stage.notes.loads[-1]) == 6 and stage.notes.loads[-1][0])
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    served(stage, bundles[1])
    after = stage.ask("after", max_tokens=4)
    assert isinstance(after.end(), Finished)
    assert stage.models[bundles[0]]() is not None
    assert 7 == max(map(sum, stage.notes.loads)), "what both rounds have under way is added up"
    stage.gates[bundles[0]].set()

    assert [(Finished, 40)] * 6 == [(type(end), end.completion_tokens) for end in (each.end() for each in begun)]
    until(lambda: gc.collect() >= 0 and stage.models[bundles[0]]() is None)
    until(lambda: stage.ledger.last_sequence() == 7)
    names = {receipt.response_id: receipt.model_sha256 for receipt in stage.ledger.receipts_after(0)}
    assert {sha(bundles[0])} == {name for response, name in names.items() if response != "after"}
    assert sha(bundles[1]) == names["after"]
    assert (0, 0) == stage.notes.loads[-1]
    assert stage.rounds.alive


def test_a_rollback_is_at_once_while_the_round_before_is_in_memory(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """The first round, which still ends a job, is served again without being loaded again; later, it is loaded."""
    stage.begin()
    stage.gates[bundles[0]].clear()
    begun = stage.ask("begun")
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    served(stage, bundles[1])
    roll_back(stage.ledger, CONSORTIUM, "test")
    served(stage, bundles[0])
    assert [bundles[0], bundles[1]] == stage.loaded
    stage.gates[bundles[0]].set()
    assert isinstance(begun.end(), Finished)
    until(lambda: gc.collect() >= 0 and stage.models[bundles[1]]() is None)
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    served(stage, bundles[1])

    assert [bundles[0], bundles[1], bundles[1]] == stage.loaded
    assert isinstance(stage.ask("after").end(), Finished)


def test_a_bundle_that_cannot_be_loaded_leaves_what_is_served(
    stage: Stage, bundles: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once in the log and to whoever asks, until it is taken back; a replica that starts then serves too."""
    stage.begin()
    opened = open_bundle(shutil.copytree(bundles[1], tmp_path / "copy"))
    next(opened.global_path.glob("*.safetensors")).write_bytes(b"")
    publish(stage.ledger, opened, "test")
    until(lambda: stage.rounds.card.fault)
    time.sleep(0.2)
    card, answer = stage.rounds.card, stage.ask("all the same").end()
    other = Stage(tmp_path / "other", bundles[0], stage.ledger)
    other.begin()
    started = other.rounds.card
    other.end()
    roll_back(stage.ledger, CONSORTIUM, "test")
    until(lambda: stage.rounds.card.fault is None)

    assert isinstance(answer, Finished)
    assert ([True, False], True) == ([*dict.fromkeys(stage.told)], stage.told[-1])
    assert (sha(bundles[0]), sha(bundles[0])) == (card.global_sha256, started.global_sha256)
    assert card.fault == started.fault
    assert f"round 2 ({opened.manifest.global_.sha256[:8]}) is published and cannot be loaded" in card.fault
    assert str(tmp_path) not in card.fault
    told = [record for record in caplog.records if "cannot be served" in record.getMessage()]
    assert 2 == len(told), "once by each replica"


def test_a_replica_that_starts_serves_what_was_published_last(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """Not what the setting names."""
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    stage.begin()

    assert sha(bundles[1]) == stage.rounds.card.global_sha256
    assert [bundles[1]] == stage.loaded


def test_a_replica_without_any_bundle_does_not_start(stage: Stage, bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """The error names the folder."""
    aside = bundles[0].rename(tmp_path / "aside")
    try:
        with pytest.raises(Exception, match=str(bundles[0])):
            stage.begin()
    finally:
        aside.rename(bundles[0])


def progress_of(bundle: Path, response_id: str, **changes: Any) -> ProgressRecord:
    """A response of a round that was whole when its process died, and waited for its score."""
    model = FederatedModel.load(bundle)
    prompt, tokens = tuple(model.encode_text("tell me")), tuple(model.encode_text(" something else"))
    made = ProgressRecord(
        response_id,
        "0123456789ab",
        1_700_000_000_000_000,
        CONSORTIUM,
        sha(bundle),
        prompt,
        tokens,
        0.0,
        900_000,
        "stop",
    )
    return replace(made, **changes)


def test_what_a_dead_process_left_of_an_earlier_round_is_scored_by_that_round(
    stage: Stage, bundles: tuple[Path, Path]
) -> None:
    """Its bundle is loaded for it, and let go; the clients earn what that round's model says, to the last digit."""
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    stage.begin()
    left = [progress_of(bundles[0], "whole"), progress_of(bundles[0], "cut", finish_reason=None)]
    leave(stage.spool, *(each.record() for each in left), progress_of(bundles[1], "own").record())
    until(lambda: stage.ledger.last_sequence() == 3 and not stage.spool.live_records())
    until(lambda: gc.collect() >= 0 and stage.models[bundles[0]]() is None)

    receipts = {receipt.response_id: receipt for receipt in stage.ledger.receipts_after(0)}
    assert [sha(bundles[0])] * 2 + [sha(bundles[1])] == [
        receipts[name].model_sha256 for name in ("whole", "cut", "own")
    ]
    expected = scores_by(bundles[0], "tell me", left[0].token_ids)
    assert expected == pytest.approx(receipts["whole"].measurement["response_scores"], rel=1e-4)
    assert {"clinic", "bank", "school"} == receipts["own"].measurement["response_scores"].keys()
    assert (None, True) == tuple(receipts[name].measurement.get("recovered") for name in ("whole", "cut"))
    assert sha(bundles[1]) == stage.rounds.card.global_sha256
    assert [bundles[1], bundles[0]] == stage.loaded


def test_what_a_dead_process_left_of_another_consortium_is_scored_by_that_one_s_bundle(
    stage: Stage, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """Replicas of all consortia share the spool's folder, and whoever comes first takes over what lies there."""
    base = base_model("llama")
    updates = {name: lora_update(base, seed, first_block=2) for seed, name in enumerate(("port", "mill"))}
    other = write_consortium(tmp_path / "other", base, updates, name="other")
    publish_setting(stage.ledger, open_bundle(other))
    stage.begin()
    left = progress_of(other, "left", consortium="other")
    leave(stage.spool, left.record())
    until(lambda: stage.ledger.last_sequence() == 1)

    receipt = stage.ledger.receipt("left")
    assert receipt is not None
    assert ("other", sha(other)) == (receipt.consortium, receipt.model_sha256)
    expected = scores_by(other, "tell me", left.token_ids)
    assert expected == pytest.approx(receipt.measurement["response_scores"], rel=1e-4)
    assert [bundles[0], other] == stage.loaded


def test_a_response_that_is_not_measured_needs_no_bundle(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """It is pending under the hash of its own round, and nothing is loaded for it."""
    put_in_force(stage.ledger.database, CONSORTIUM, "0.000001", "test")
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    stage.begin()
    leave(stage.spool, progress_of(bundles[0], "left", created_at_us=time.time_ns() // 1000).record())
    until(lambda: stage.ledger.last_sequence() == 1)

    receipt = stage.ledger.receipt("left")
    assert receipt is not None
    assert (sha(bundles[0]), {"pending"}) == (receipt.model_sha256, receipt.amounts.keys())
    assert [bundles[1]] == stage.loaded


def test_a_response_waits_for_a_bundle_that_is_away(stage: Stage, bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """It stays in the spool, unbooked, for as long as one is patient; then nobody earns by it, and it says why."""
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    record = progress_of(bundles[0], "left").record()
    aside = bundles[0].rename(tmp_path / "aside")
    try:
        stage.begin(patience_s=1.0)
        since = time.monotonic()
        leave(stage.spool, record)
        until(lambda: stage.ledger.is_booked("left"))
        waited_s = time.monotonic() - since
    finally:
        aside.rename(bundles[0])

    receipt = stage.ledger.receipt("left")
    assert receipt is not None
    assert waited_s >= 1
    assert {"commons"} == receipt.amounts.keys()
    assert "not served any more" in receipt.measurement["unattributed"]


GONE = "90" * 32


def publish_gone(stage: Stage, consortium: str = CONSORTIUM) -> None:
    """A publication of a round whose bundle lies nowhere any more, known as `GONE`."""
    with stage.ledger.database.write() as connection:
        publications.publish(
            connection,
            consortium,
            bundle="/nowhere/bundle",
            model_sha256=GONE,
            manifest_sha256="91" * 32,
            round_number=9,
            actor="test",
        )


def test_a_bundle_that_is_away_holds_up_no_other(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """What was left of a round that is here is scored, though what waits for one that is not was there before."""
    publish_gone(stage)
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    stage.begin()
    leave(stage.spool, progress_of(bundles[0], "waits", model_sha256=GONE).record())
    until(lambda: "waits" in {record["id"] for record in stage.spool.live_records()})
    leave(stage.spool, progress_of(bundles[0], "left").record())
    until(lambda: stage.ledger.is_booked("left"))

    receipt = stage.ledger.receipt("left")
    assert receipt is not None
    assert {"clinic", "bank"} == receipt.measurement["response_scores"].keys()
    assert not stage.ledger.is_booked("waits")


def test_patience_begins_when_a_bundle_could_not_be_loaded(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """While another round ends none is loaded, and so none is given up; then it is tried for as long as is due."""
    stage.begin(patience_s=0.2)
    stage.gates[bundles[0]].clear()
    begun = stage.ask("begun")
    publish_gone(stage)
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    served(stage, bundles[1])
    leave(stage.spool, progress_of(bundles[1], "left", model_sha256=GONE).record())
    until(lambda: "left" in {record["id"] for record in stage.spool.live_records()})
    time.sleep(0.6)
    booked_early = stage.ledger.is_booked("left")
    stage.gates[bundles[0]].set()
    assert isinstance(begun.end(), Finished)
    until(lambda: stage.ledger.is_booked("left"))

    assert not booked_early


def test_a_round_that_cannot_be_served_can_score(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """An engine that keeps its weights refuses to serve it, again and again; what was left of it needs no engine."""
    stage.unservable.add(bundles[1])
    stage.begin()
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    until(lambda: stage.rounds.card.fault)
    leave(stage.spool, progress_of(bundles[1], "left").record())
    until(lambda: stage.ledger.is_booked("left"))

    receipt = stage.ledger.receipt("left")
    assert receipt is not None
    assert {"clinic", "bank", "school"} == receipt.measurement["response_scores"].keys()


def test_another_manifest_than_was_published_is_not_loaded(
    stage: Stage, bundles: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the same global model it would pay others than the log says; it serves again once it is put back."""
    copy = open_bundle(shutil.copytree(bundles[1], tmp_path / "copy"))
    publish(stage.ledger, copy, "test")
    manifest = next(copy.path.glob("*.json"))
    manifest.write_text(manifest.read_text("utf-8") + "\n", "utf-8")
    open_bundle(copy.path)
    stage.begin()

    assert sha(bundles[0]) == stage.rounds.card.global_sha256
    assert "round 2" in stage.rounds.card.fault
    assert [bundles[0]] == stage.loaded
    assert f"{manifest} has SHA-256" in caplog.text


def test_a_publication_that_waits_for_a_round_to_end_is_told(
    stage: Stage, bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once that has lasted: a round that cannot end would hold it up without a word. It is tried when there is room."""
    monkeypatch.setattr(rollout, "WAIT_S", 0.3)
    stage.begin()
    stage.gates[bundles[0]].clear()
    begun = stage.ask("begun")
    publish(stage.ledger, open_bundle(bundles[1]), "test")
    served(stage, bundles[1])
    since = time.monotonic()
    publish_gone(stage)
    told = until(lambda: stage.rounds.card.fault)
    waited_s = time.monotonic() - since
    stage.gates[bundles[0]].set()
    assert isinstance(begun.end(), Finished)
    until(lambda: "cannot be loaded" in stage.rounds.card.fault)

    assert waited_s >= 0.3
    began = sha(bundles[0])[:8]
    assert f"round 9 ({GONE[:8]}) is published and waits until what {began} began, or left, has ended" == told
    assert not stage.told[-1]


def test_a_bundle_that_was_published_elsewhere_too_may_leave_its_folder(
    stage: Stage, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """The round goes on, watched where it lies now; there it may no more be altered than where it was."""
    before, after = (shutil.copytree(bundles[1], tmp_path / place) for place in ("before", "after"))
    publish(stage.ledger, open_bundle(before), "test")
    stage.begin()
    publish(stage.ledger, open_bundle(after), "test")
    stage.rounds.check()
    shutil.rmtree(before)
    stage.rounds.check()
    manifest = next(after.glob("*.json"))
    manifest.write_text(manifest.read_text("utf-8") + "\n", "utf-8")
    with pytest.raises(PartLostError, match="is another one than when the service started"):
        stage.rounds.check()

    assert [before] == stage.loaded


def test_what_another_consortium_s_replica_left_is_never_given_up(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """Its own replicas may have the bundle that this one has not: it stays in the spool, which they take over."""
    publish_gone(stage, "other")
    stage.begin(patience_s=0.1)
    foreign = progress_of(bundles[0], "left", consortium="other", model_sha256=GONE)
    leave(stage.spool, foreign.record())
    until(lambda: "left" in {record["id"] for record in stage.spool.live_records()})
    time.sleep(0.8)

    assert not stage.ledger.is_booked("left")
    assert ["left"] == [record["id"] for record in stage.spool.live_records()]


def loader_of(stage: Stage, **settings: Any) -> RoundLoader:
    """What a replica with such settings loads bundles by."""
    made = Settings(ledger=stage.ledger.database.url, cpus_per_replica=1, default_max_tokens=3, **settings)
    return RoundLoader(made, stage._books, ReplicaMetrics(CONSORTIUM, Registered()))


def test_a_replica_loads_a_bundle_as_its_settings_say(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """The round it makes answers, scores and books, and its files are as they were."""
    made = loader_of(stage, bundle=bundles[0])(bundles[0], serves=True)
    caller = Caller(made.worker, job("one", logit_bias={2: -100.0}), stage.ledger, look=False)
    end = caller.end()
    made.check()
    made.stop(30)
    stage.bookings.close()

    assert (Finished, 8, True) == (type(end), end.completion_tokens, made.serves)
    assert (CONSORTIUM, sha(bundles[0]), ("clinic", "bank"), 128) == (
        made.card.name, made.card.global_sha256, made.card.client_ids, made.card.context_length
    )  # fmt: skip
    assert stage.ledger.is_booked("one")


def test_a_second_round_is_loaded_only_where_there_is_room_for_two(
    stage: Stage, bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is loaded whatever is free; without room for another, that one is refused and the first serves on."""
    monkeypatch.setattr("deployment.cluster.machine._free_bytes", lambda: 1000)
    loader = loader_of(stage, bundle=bundles[0])
    served = loader(bundles[0], serves=True)
    with pytest.raises(StartError, match=f"^{bundles[1]}: takes .* beside what is served"):
        loader(bundles[1], serves=True)
    caller = Caller(served.worker, job("one", logit_bias={2: -100.0}), stage.ledger, look=False)
    end = caller.end()
    served.stop(30)
    stage.bookings.close()

    assert Finished is type(end)


def test_an_engine_of_its_own_keeps_its_round(stage: Stage, bundles: tuple[Path, Path]) -> None:
    """It holds the weights that it was started with, so no other round is served; to score one, none is asked."""
    engine = EngineSettings(kind="openai", url="http://127.0.0.1:9")
    loader = loader_of(stage, bundle=bundles[0], engine=engine)
    served = loader(bundles[0], serves=True)
    with pytest.raises(StartError, match="start the service again"):
        loader(bundles[1], serves=True)
    scorer = loader(bundles[0], serves=False)
    scorer.worker.recover(progress_of(bundles[0], "left"))
    until(lambda: stage.ledger.is_booked("left"))
    for each in (served, scorer):
        each.stop(30)
    stage.bookings.close()

    assert ({"engine"}, set(), False) == ({*served.engine_checks}, {*scorer.engine_checks}, scorer.serves)
