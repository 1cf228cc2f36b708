"""The spool against crashes at any byte, flipped bytes, full disks, other processes and SIGKILL."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.errors import PartLostError, SpoolError
from deployment.spool.lines import Record, line_of, read
from deployment.spool.spool import COMPACT_BYTES, Spool

IDS = [f"r{number}" for number in range(6)]


def record(name: str, kind: str = "receipt", **rest: Any) -> Record:
    """A record of one id."""
    return {"id": name, "kind": kind, **rest}


def left_behind(folder: Path, data: bytes, name: str = "dead") -> Path:
    """A file as a process that was killed leaves it: nobody holds its lock."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"spool-{name}.jsonl"
    path.write_bytes(data)
    return path


def names(records: Any) -> list[str]:
    """The ids of records."""
    return [each["id"] for each in records]


records_ = st.builds(
    record, st.sampled_from(IDS), st.sampled_from(["progress", "receipt"]), text=st.text(max_size=5), n=st.integers()
)
moves = st.one_of(
    st.tuples(st.just("append"), st.lists(records_, min_size=1, max_size=3)),
    st.tuples(st.just("done"), st.lists(st.sampled_from(IDS), min_size=1, max_size=3)),
)


def expected_after(model: dict[str, Record], kind: str, given_: Any) -> dict[str, Record]:
    """What is live after a move, said once more: the last record of an id counts, progress never beats a receipt."""
    model = dict(model)
    if kind == "done":
        return {name: each for name, each in model.items() if name not in given_}
    for each in given_:
        if each["kind"] == "receipt" or model.get(each["id"], {}).get("kind") != "receipt":
            model[each["id"]] = each
    return model


@pytest.mark.long
@settings(deadline=None)  # a disk that others use is slow now and then
@given(st.lists(moves, max_size=12), st.lists(records_, min_size=1, max_size=3), st.floats(0, 1))
def test_whatever_was_appended_is_live_after_a_crash_at_any_byte(
    done_before: list[Any], under_way: list[Record], part: float
) -> None:
    """Of an append that did not return some records may be there, torn ones never; nothing else changes."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "first")
        model: dict[str, Record] = {}
        for kind, argument in done_before:
            spool.append(argument) if kind == "append" else spool.mark_done(argument)
            model = expected_after(model, kind, argument)
        assert list(model.values()) == spool.live_records()

        written = b"".join(line_of(each) for each in under_way)
        cut = written[: round(part * len(written))]
        whole = cut.count(b"\n")
        left_behind(Path(folder) / "second", spool.path.read_bytes() + cut)
        heir = Spool(Path(folder) / "second")
        (adopted,) = heir.adopt()

        assert list(expected_after(model, "append", under_way[:whole]).values()) == heir.live_records()
        assert (heir.live_records(), ()) == (list(adopted.records), adopted.damaged_lines)
        assert (not cut.endswith(b"\n") and cut != b"") == adopted.torn
        assert not adopted.path.exists()
        spool.close()
        heir.close()


def test_every_flipped_byte_is_reported_and_costs_at_most_the_lines_it_touches() -> None:
    """Each byte of a file in turn, with three other values: the damage is told, and all other records are there."""
    lines = [line_of(record(name, text="Grüß", n=n)) for n, name in enumerate(IDS)]
    data = b"".join(lines)
    owner = [number for number, line in enumerate(lines) for _ in line]
    for at in range(len(data)):
        for value in {data[at] ^ 1, data[at] ^ 0x80, ord("\n")} - {data[at]}:
            found = read(data[:at] + bytes([value]) + data[at + 1 :])
            touched = {owner[at], owner[min(at + 1, len(data) - 1)]}  # a newline that is gone joins two lines

            assert (True, False) == (bool(found.damaged_lines), found.torn), (at, value)
            assert {name for n, name in enumerate(IDS) if n not in touched} <= found.live.lines.keys(), (at, value)


def test_damaged_file_is_kept_aside_and_the_rest_adopted(tmp_path: Path) -> None:
    """A file with an unreadable line is adopted without it, is kept under another name, and not read again."""
    data = b"".join(line_of(record(name)) for name in IDS[:3])
    path = left_behind(tmp_path, data.replace(b"r1", b"rX"))
    spool = Spool(tmp_path)
    (adopted,) = spool.adopt()

    assert ((2,), ["r0", "r2"]) == (adopted.damaged_lines, names(adopted.records))
    assert (path.with_name("spool-dead.jsonl.damaged"), False) == (adopted.path, path.exists())
    assert data.replace(b"r1", b"rX") == adopted.path.read_bytes()
    assert [] == spool.adopt()


def test_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    """Two spools in one folder do not see each other while both live; after one's death the other takes it over."""
    script = f"""
import sys
from pathlib import Path
from deployment.spool.spool import Spool
spool = Spool(Path({str(tmp_path)!r}))
spool.append([{{"id": "theirs", "kind": "receipt"}}])
print(spool.path, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        path = Path(other.stdout.readline().decode().strip())
        spool = Spool(tmp_path)
        assert ([], True) == (spool.adopt(), path.exists())
        other.kill()
        other.wait()

    (adopted,) = spool.adopt()
    assert (["theirs"], False) == (names(spool.live_records()), adopted.path.exists())
    assert 0o600 == spool.path.stat().st_mode & 0o777


def test_spool_whose_lock_a_network_disk_gave_away_writes_nothing_more(tmp_path: Path) -> None:
    """What it had promised is the heir's, once; whoever lost it is told, and takes no further record as durable."""
    cut_off, heir = Spool(tmp_path), Spool(tmp_path)
    cut_off.append([record("r0")])
    fcntl.flock(cut_off._fd, fcntl.LOCK_UN)  # as such a disk does once a machine's lease is over
    (adopted,) = heir.adopt()

    assert ["r0"] == names(adopted.records) == names(heir.live_records())
    with pytest.raises(SpoolError, match="is gone"):
        cut_off.append([record("r1")])
    with pytest.raises(PartLostError, match="is gone"):
        cut_off.check()
    assert [] == heir.adopt()


def test_two_heirs_adopt_a_file_once(tmp_path: Path) -> None:
    """Of several processes that start at once each file is adopted by exactly one."""
    for number in range(40):
        left_behind(tmp_path, line_of(record(f"r{number}")), str(number))
    spools = [Spool(tmp_path) for _ in range(4)]
    found: list[list[str]] = [[] for _ in spools]

    def adopt(index: int) -> None:
        found[index] = [name for adopted in spools[index].adopt() for name in names(adopted.records)]

    threads = [threading.Thread(target=adopt, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(f"r{number}" for number in range(40)) == sorted(name for each in found for name in each)


APPENDER = """
import sys
from itertools import count
from pathlib import Path
from deployment.spool.spool import Spool
spool = Spool(Path(sys.argv[1]))
spool.adopt()
for number in count():
    name = f"{sys.argv[2]}-{number}"
    progress = {"id": name + "b", "kind": "progress"}
    spool.append([{"id": name, "kind": "receipt", "text": "x" * (number % 997)}, progress])
    print(name, flush=True)
    if number % 3 == 0:
        spool.mark_done([name + "b"])
"""


def test_sigkill_loses_nothing_that_was_promised(tmp_path: Path) -> None:
    """Ten processes in a row, each adopts its predecessor's file and is killed at a random moment."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    promised: set[str] = set()
    for life in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path), str(life)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout
            wanted = chance.randrange(1, 60)
            for _ in range(wanted):
                promised.add(child.stdout.readline().decode().strip())
            os.kill(child.pid, signal.SIGKILL)
            promised |= {line.decode().strip() for line in child.stdout if line.endswith(b"\n")}

    heir = Spool(tmp_path)
    adopted = heir.adopt()
    assert promised <= set(names(heir.live_records()))
    assert [()] * len(adopted) == [each.damaged_lines for each in adopted]


FULL = """
import resource, signal, sys
from pathlib import Path
from deployment.errors import PartLostError, SpoolError
from deployment.spool.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]))
spool.append([{"id": "kept", "kind": "receipt"}])
before = spool.path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    spool.append([{"id": "small", "kind": "receipt"}, {"id": "large", "kind": "receipt", "text": "x" * 2000}])
except SpoolError as error:
    print(error)
assert spool.path.read_bytes() == before, "something of the refused write is there"
assert [each["id"] for each in spool.live_records()] == ["kept"]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.append([{"id": "later", "kind": "receipt"}])
"""


def test_full_disk_is_named_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """A write that the system cuts in the middle raises with file and reason; none of its records is there later."""
    ran = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)

    assert (0, "") == (ran.returncode, ran.stderr)
    assert "cannot be written: File too large" in ran.stdout
    assert str(tmp_path / "spool-") in ran.stdout
    heir = Spool(tmp_path)
    heir.adopt()
    assert ["kept", "later"] == names(heir.live_records())


def test_dead_lines_are_compacted_away(tmp_path: Path) -> None:
    """A file that is mostly dead shrinks to what is live, which survives; a crash in the middle leaves no trace."""
    spool = Spool(tmp_path)
    spool.append([record("kept", "progress", n=1)])
    for number in range(100):
        spool.append([record(f"r{number}", text="x" * 200_000)])
        spool.mark_done([f"r{number}"])
    assert spool.size < COMPACT_BYTES + 2 * 200_100
    assert spool.size == spool.path.stat().st_size
    spool.append([record("kept", "progress", n=2)])

    left_behind(tmp_path / "other", spool.path.read_bytes())
    left_behind(tmp_path / "other", b"half a compac").rename(tmp_path / "other" / "spool-dead.jsonl.tmp")
    left_behind(tmp_path / "other", spool.path.read_bytes())
    heir = Spool(tmp_path / "other")
    heir.adopt()
    assert [record("kept", "progress", n=2)] == heir.live_records() == spool.live_records()
    assert [heir.path] == list((tmp_path / "other").iterdir())


def test_file_is_empty_once_nothing_is_live(tmp_path: Path) -> None:
    """Tokens of prompts lie about no longer than they are needed; what comes after is durable as ever."""
    spool = Spool(tmp_path)
    spool.append([record("a", "progress", prompt_ids=[1, 2, 3]), record("b")])
    spool.mark_done(["a", "unknown"])
    assert 0 < spool.size
    spool.mark_done(["b"])
    assert (0, 0) == (spool.size, spool.path.stat().st_size)
    spool.append([record("c")])
    assert ["c"] == list(read(spool.path.read_bytes()).live.lines)


def test_closed_spool_takes_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A spool with nothing live deletes its file when it is closed; one with live records leaves them for the next."""
    empty, full = Spool(tmp_path), Spool(tmp_path)
    full.append([record("left")])
    for spool in (empty, full):
        spool.close()
        spool.close()
    assert [full.path] == list(tmp_path.iterdir())
    calls: list[Callable[[], Any]] = [lambda: full.append([record("a")]), lambda: full.mark_done(["left"]), full.adopt]
    for call in calls:
        with pytest.raises(SpoolError, match="closed"):
            call()
    heir = Spool(tmp_path)
    heir.adopt()
    assert ["left"] == names(heir.live_records())


def test_refused_record_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    """What can never be booked leaves the spool for a file that says why; nothing of it is lost."""
    spool = Spool(tmp_path)
    spool.append([record("bad", n=7), record("good")])
    spool.set_aside(record("bad", n=7), "no such client")

    (aside,) = tmp_path.glob("refused-*.jsonl")
    assert '"why": "no such client"' in aside.read_text()
    assert '"n": 7' in aside.read_text()
    assert (["good"], 0o600) == (names(spool.live_records()), aside.stat().st_mode & 0o777)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"kind": "receipt"}, "id"),
        ({"id": "", "kind": "receipt"}, "id"),
        ({"id": "a", "kind": "done"}, "kind"),
        ({"id": "a", "kind": "receipt", "x": float("nan")}, "'a'"),
        ({"id": "a", "kind": "receipt", "x": {1, 2}}, "'a'"),
    ],
)
def test_malformed_record_is_named_and_nothing_is_written(tmp_path: Path, bad: Any, named: str) -> None:
    """One bad record refuses the whole append; the good ones beside it are not there either."""
    spool = Spool(tmp_path)
    with pytest.raises(SpoolError, match=named):
        spool.append([record("good"), bad])
    assert ([], 0) == (spool.live_records(), spool.size)


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A spool whose folder is a file says so."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"spool folder .*file.* cannot be used"):
        Spool(tmp_path / "file")


def test_many_threads_share_a_spool(tmp_path: Path) -> None:
    """Appends and removals from eight threads leave exactly what nobody removed, in memory and in the file."""
    spool = Spool(tmp_path)

    def work(thread: int) -> None:
        for number in range(50):
            spool.append([record(f"{thread}-{number}")])
            if number % 5:
                spool.mark_done([f"{thread}-{number}"])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{thread}-{number}" for thread in range(8) for number in range(0, 50, 5)}
    assert expected == set(names(spool.live_records())) == read(spool.path.read_bytes()).live.lines.keys()


def test_laxer_files_are_tightened_and_a_laxer_folder_is_told_of(tmp_path, caplog):
    """What a copy brought back readable by others, or set aside, is its owner's alone once a spool is opened."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o755)
    found = [folder / name for name in ("spool-0.jsonl", "refused-0.jsonl", "spool-1.jsonl.damaged")]
    for path in found:
        path.touch(0o644)
    Spool(folder).close()

    assert [0o600] * 3 == [path.stat().st_mode & 0o777 for path in found]
    assert 0o755 == folder.stat().st_mode & 0o777
    assert f"others may look into folder {folder} (mode 755)" in caplog.text
