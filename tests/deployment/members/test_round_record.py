"""What a published bundle records of its rounds, as whoever reads it finds it: signatures judged, nothing assumed."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from attribution.bundle.manifest import RoundEntry
from deployment.errors import PartLostError
from deployment.members.round_record import Absence, RoundRecord, read_record
from tests.deployment.recorded_bundles import Document, alter, manifest_document


def record_of(folder: Path, document: Document, before: int | None = None, limit: int = 100) -> RoundRecord:
    """What is read of a manifest."""
    content = json.dumps(document).encode()
    (folder / "consortium.json").write_bytes(content)
    return read_record(folder, sha256(content).hexdigest(), before=before, limit=limit)


def test_each_signature_is_judged(tmp_path: Path) -> None:
    """One that holds, one of another round, one that lacks although there is a key, and one that nobody could give."""
    document = manifest_document("hospital-net", ["clinic", "bank"], 3)
    replayed = document["rounds"][0]["updates"][0]["statement"]
    alter(document, 2, "clinic", lambda update: update.update(statement=replayed))
    alter(document, 3, "clinic", lambda update: update.update(statement=None))
    record = record_of(tmp_path, document)

    clinic = {each.number: each.contributions[0] for each in record.rounds}
    bank = record.rounds[-1].contributions[1]
    assert [3, 2, 1] == [*clinic]
    assert ("holds", None, True) == (clinic[1].signature, clinic[1].problem, clinic[1].has_receipt)
    assert ("fails", "statement: it was signed for round 1, and this is 2") == (clinic[2].signature, clinic[2].problem)
    assert "fails" == clinic[3].signature
    assert "not signed" in str(clinic[3].problem)
    assert ("none", None, False) == (bank.signature, bank.problem, bank.has_receipt)
    assert {"bank": 3, "clinic": 1} == record.unsigned


def test_rounds_come_with_what_was_recorded_of_them(tmp_path: Path) -> None:
    """Weights, norms, the server's part as it is and against what clients changed, and who was missing."""
    document = manifest_document("hospital-net", ["clinic", "bank", "school"], 3)
    document["rounds"][1]["updates"].pop()
    document["rounds"][1]["missing"] = [{"client": "school", "node": "17", "reason": "lost its connection"}]
    for each in document["rounds"]:
        each["updates"] = [update for update in each["updates"] if update["client"] != "bank"]
    record = record_of(tmp_path, document, before=3, limit=1)
    (second,) = record.rounds

    assert (2, 3, ("bank",)) == (second.number, record.count, record.absent)
    assert [("clinic", 1 / 3, 1.0)] == [(each.client, each.weight, each.norm) for each in second.contributions]
    assert (Absence("school", "17", "lost its connection"),) == second.missing
    assert (0.5, pytest.approx(1.5)) == (second.residual_norm, second.residual_ratio)
    assert {"clip_to_median": True, "cap_counts": 2.0, "drop_duplicates": None} == record.defences


@pytest.mark.parametrize(("residual", "ratio"), [(0.0, 0.0), (0.5, None)])
def test_what_no_client_changed_has_no_ratio(residual: float, ratio: float | None) -> None:
    """A server that did something where clients did nothing is no part of nothing."""
    nothing = {"before_sha256": "a" * 64, "after_sha256": "b" * 64, "updates": []}

    assert ratio == RoundEntry.model_validate({"round": 1, "residual_norm": residual, **nothing}).residual_ratio


def test_a_bundle_without_rounds_has_none(tmp_path: Path) -> None:
    """It was merged of folders; what it says beside that is there."""
    document = manifest_document("hospital-net", ["clinic"], 1) | {"aggregation": "fedavg-exact"}
    del document["rounds"], document["start_norm"]
    record = record_of(tmp_path, document)

    assert (None, (), (), {}, 0.5) == (
        record.count,
        record.rounds,
        record.absent,
        record.unsigned,
        record.residual_norm,
    )


def test_what_lies_elsewhere_now_is_not_read(tmp_path: Path) -> None:
    """No folder, no manifest in it, or another one: the reason names no path."""
    record_of(tmp_path, manifest_document("hospital-net", ["clinic"], 1))
    for folder, words in ((tmp_path / "nowhere", "folder is gone"), (tmp_path, "another bundle lies")):
        with pytest.raises(PartLostError, match=words) as caught:
            read_record(folder, "ab" * 32, before=None, limit=1)
        assert str(tmp_path) not in str(caught.value)


def test_who_reads_rounds_needs_no_model() -> None:
    """Neither the pages nor the exporter load PyTorch for it."""
    modules = (
        "deployment.members.round_record",
        "deployment.console.app",
        "deployment.api",
        "deployment.metrics.ledger",
    )
    code = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.strip()
