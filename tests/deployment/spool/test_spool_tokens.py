"""Tokens of prompts are on the disk while a stream runs, and not after: not in its file, nor in what is kept aside."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deployment.retention.files import KeptFiles
from deployment.spool.lines import Record, line_of, read, wiped_line
from deployment.spool.records import ProgressRecord
from deployment.spool.spool import COMPACT_BYTES, Spool
from rewards.errors import CreditError
from tests.waiting import PATIENCE_S, until

PROMPT = (48_151, 62_342, 31_337)
TEXT = b"48151,62342,31337"
SPACED = b"48151, 62342, 31337"


def progress(name: str, tokens: int = 16, prompt: Any = PROMPT) -> Record:
    """The progress of a stream whose prompt is known by its ids."""
    return ProgressRecord(name, "app", 1, "demo", "ab" * 32, prompt, tuple(range(tokens)), 0.0, 5).record()


def receipt(name: str) -> Record:
    """A record that holds no tokens."""
    return {"id": name, "kind": "receipt", "receipt": {"amounts": {"clinic": 5}}}


def holding(folder: Path) -> list[str]:
    """The files in which the prompt can be read."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name for path in files if TEXT in path.read_bytes() or SPACED in path.read_bytes())


def test_folders_that_are_made_are_private(tmp_path: Path) -> None:
    """Those above the spool's too: whoever makes a folder of replays within it first makes it no more open."""
    KeptFiles(tmp_path / "spool" / "ledger" / "replays", 60.0)
    spool = Spool(tmp_path / "spool" / "ledger")

    assert [0o700] * 3 == [path.stat().st_mode & 0o777 for path in (tmp_path / "spool").glob("**/")]
    assert 0o600 == spool.path.stat().st_mode & 0o777


def test_tokens_are_wiped_as_soon_as_they_are_replaced_or_done(tmp_path: Path) -> None:
    """Of a stream that runs the last progress is there, for its owner alone; of one that is booked or over, nothing."""
    spool = Spool(tmp_path)
    spool.append([progress("runs"), progress("ends"), progress("booked")])
    spool.append([progress("runs", 32), progress("ends", 32)])
    assert (3, 0o600) == (spool.path.read_bytes().count(TEXT), spool.path.stat().st_mode & 0o777)

    spool.append([receipt("booked")])
    spool.mark_done(["ends"])
    assert 1 == spool.path.read_bytes().count(TEXT)
    found = read(spool.path.read_bytes())
    assert ([], False, spool.live_records()) == (found.damaged_lines, found.torn, found.live.records())

    spool.append([progress("booked")])  # late, and never needed
    assert 1 == spool.path.read_bytes().count(TEXT)
    spool.mark_done(["runs"])
    assert [] == holding(tmp_path)


def test_a_file_that_is_compacted_leaves_no_tokens_behind(tmp_path: Path) -> None:
    """Neither the old file, which others may still have open, nor the new one once the stream is done."""
    spool = Spool(tmp_path)
    spool.append([progress("runs")])
    old = os.open(spool.path, os.O_RDONLY)
    while os.fstat(old).st_nlink:
        assert spool.size < 2 * COMPACT_BYTES
        spool.append([{**receipt("r"), "text": "x" * 2**20}])
        spool.mark_done(["r"])

    assert TEXT not in os.pread(old, 2 * COMPACT_BYTES, 0)
    assert [progress("runs")["id"]] == [record["id"] for record in spool.live_records()]
    assert 1 == spool.path.read_bytes().count(TEXT)
    spool.append([progress("runs", 32), receipt("other")])
    spool.mark_done(["runs"])
    assert [] == holding(tmp_path)
    os.close(old)


def test_what_is_adopted_is_in_the_heir_alone(tmp_path: Path) -> None:
    """The file of the dead is overwritten before it is deleted, with what a compaction had left beside it."""
    path = tmp_path / "spool-dead.jsonl"
    half = tmp_path / "spool-dead.jsonl.tmp"
    for each in (path, half):
        each.write_bytes(line_of(progress("cut")))
    open_ = [os.open(each, os.O_RDONLY) for each in (path, half)]
    heir = Spool(tmp_path)
    heir.adopt()

    assert [False, False] == [TEXT in os.pread(fd, 10_000, 0) for fd in open_]
    assert [heir.path.name] == holding(tmp_path)
    heir.mark_done(["cut"])
    assert [] == holding(tmp_path)


def test_a_damaged_file_keeps_receipts_and_no_tokens(tmp_path: Path) -> None:
    """Of a line that holds tokens, sound or damaged, there is its length and hash; receipts are kept as they were."""
    lines = [
        line_of(progress("sound")),
        line_of(progress("torn")),
        line_of(receipt("damaged")),
        line_of(receipt("good")),
    ]
    lines[1] = lines[1].replace(b'"kind":"progress"', b'"kind":"receipt" ').replace(b"torn", b"tarn")
    lines[2] = lines[2].replace(b"clinic", b"clinik")
    (tmp_path / "spool-dead.jsonl").write_bytes(b"".join(lines))
    heir = Spool(tmp_path)
    (adopted,) = heir.adopt()

    kept = adopted.path.read_bytes()
    assert ((2, 3), ["sound", "good"]) == (adopted.damaged_lines, [record["id"] for record in adopted.records])
    assert lines[2] + lines[3] in kept
    assert 2 == kept.count(b"sha256 ")
    assert [heir.path.name] == holding(tmp_path)


def test_a_refused_stream_is_kept_without_its_tokens(tmp_path: Path) -> None:
    """Whose it was and how long stays, for whoever books it by hand; also where the record is not as it should be."""
    spool = Spool(tmp_path)
    odd = {
        "id": "odd",
        "kind": "progress",
        "progress": {"prompt_ids": "48151,62342,31337", "application": list(PROMPT)},
    }
    for record in (progress("refused"), odd):
        spool.append([record])
        spool.set_aside(record, "no such client")
    (aside,) = tmp_path.glob("refused-*.jsonl")
    first, second = (json.loads(line) for line in aside.read_text().splitlines())

    kept = first["record"]["progress"]
    assert (3, 16, "app", "demo") == (
        kept["prompt_count"],
        kept["token_count"],
        kept["application"],
        kept["consortium"],
    )
    assert {"id": "odd", "kind": "progress", "progress": {}} == second["record"]
    assert [] == holding(tmp_path)


def test_why_a_stream_is_refused_quotes_nothing_of_it() -> None:
    """A record that another version wrote is named by its fields alone."""
    for prompt in ("the harbour bell", ["harbour"], {"harbour": 1}, [48_151.5]):
        with pytest.raises(CreditError, match="prompt_ids") as refused:
            ProgressRecord.from_record(progress("r", prompt=prompt))
        assert not any(word in str(refused.value) for word in ("harbour", "48151"))
        assert refused.value.__cause__ is None


def test_what_an_earlier_version_kept_aside_is_cleared(tmp_path: Path) -> None:
    """Its damaged and refused files lose their tokens when a spool of the folder is opened, and nothing else."""
    damaged = tmp_path / "spool-old.jsonl.damaged"
    damaged.write_bytes(line_of(progress("a")) + line_of(receipt("b")) + b"garbage 48151,62342,31337\n")
    refused = tmp_path / "refused-old.jsonl"
    rows = [{"at_us": 1, "why": "w", "record": record} for record in (progress("c"), receipt("d"))]
    refused.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert 2 == len(holding(tmp_path))
    Spool(tmp_path).close()

    assert [] == holding(tmp_path)
    assert line_of(receipt("b")) in damaged.read_bytes()
    kept = [json.loads(line) for line in refused.read_text().splitlines()]
    assert (16, receipt("d")) == (kept[0]["record"]["progress"]["token_count"], kept[1]["record"])
    before = damaged.read_bytes(), refused.read_bytes()
    Spool(tmp_path).close()
    assert before == (damaged.read_bytes(), refused.read_bytes())
    assert {damaged.name, refused.name} == {path.name for path in tmp_path.iterdir()}


def test_a_line_that_was_being_wiped_in_a_crash_is_no_damage() -> None:
    """Wiping goes from the front: once the id stands there, the rest of the old line does not matter."""
    line = line_of(progress('Grüß "x"'))[:-1]
    over = wiped_line('Grüß "x"', len(line))
    assert len(line) == len(over)
    for cut in range(over.index(b"#"), len(line)):
        found = read(over[:cut] + line[cut:] + b"\n" + line_of(receipt("r")))
        assert ([], ["r"]) == (found.damaged_lines, list(found.live.lines))


@pytest.mark.long
def test_texts_expire_without_anybody_asking_and_after_a_restart(tmp_path: Path) -> None:
    """Files whose time ends while nothing is asked go by themselves, as do those that an earlier process left."""
    old, future = tmp_path / "cmpl-old.json", tmp_path / "cmpl-future.json"
    for path, age in ((old, 3600), (future, -3600)):
        path.write_text("{}")
        os.utime(path, (time.time() - age,) * 2)
    files = KeptFiles(tmp_path, 0.5)
    files.keep("cmpl-new", {})
    until(lambda: not list(tmp_path.iterdir()))


def test_a_text_that_comes_while_others_are_swept_expires_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the folder just after a sweep has listed what is there: the next sweep finds it."""
    listed, is_kept = threading.Event(), threading.Event()
    original = Path.iterdir

    def iterdir(path: Path) -> Any:
        files = list(original(path))
        if path == tmp_path and not listed.is_set():
            listed.set()
            assert is_kept.wait(PATIENCE_S)
        return iter(files)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    files = KeptFiles(tmp_path, 0.3)
    assert listed.wait(PATIENCE_S)
    files.keep("cmpl-new", {})
    is_kept.set()
    until(lambda: not (tmp_path / "cmpl-new.json").exists())


def test_a_folder_that_cannot_be_swept_for_once_is_swept_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the disk while texts are looked through does not end their expiry."""
    calls: list[int] = []
    original = Path.iterdir

    def iterdir(path: Path) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            raise OSError(5, "Input/output error")
        return original(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    files = KeptFiles(tmp_path, 0.3)
    files.keep("cmpl-new", {})
    until(lambda: not (tmp_path / "cmpl-new.json").exists())
    assert 2 < len(calls)
