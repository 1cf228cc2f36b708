"""Whether a machine is what a replica's settings say, and has the memory for what its scores read."""

from pathlib import Path

import pytest

from attribution.base.linear_products import PACKED_BYTES
from attribution.bundle.footprint import sizes_of
from deployment.cluster import machine
from deployment.cluster.machine import require_given, require_memory, require_room
from deployment.errors import StartError
from deployment.settings import EngineSettings, Settings
from tests.attribution.consortia import base_model, updates, write_consortium


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose updates are whole differences of every parameter."""
    model = base_model("llama")
    return write_consortium(tmp_path_factory.mktemp("dense"), model, updates(model, kind="everything"))


@pytest.fixture(scope="module")
def low_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose updates are low-rank differences."""
    model = base_model("llama")
    return write_consortium(tmp_path_factory.mktemp("low-rank"), model, updates(model))


def test_threads_and_device_are_those_that_ray_gave():
    """What Serve's configuration overrides is noticed: by the settings threads and the device are chosen."""
    settings = Settings(bundle=Path("/b"), cpus_per_replica=2, gpus_per_replica=0.5)

    require_given(settings, {"CPU": 2.0, "GPU": 0.5, "memory": 1e9})
    with pytest.raises(StartError, match=r"gave this replica 1 GPU, and gpus_per_replica is 0.5.*ray_actor_options"):
        require_given(settings, {"CPU": 2.0, "GPU": 1.0})
    with pytest.raises(StartError, match="gave this replica 0 CPU, and cpus_per_replica is 2"):
        require_given(settings, {"GPU": 0.5})


def test_whole_differences_must_fit_beside_the_model(dense: Path):
    """Every client's are as large as the model, in float32; on a processor the model is in the same memory."""
    sizes = sizes_of(dense)
    needed = sizes.dense_bytes + 8 * sizes.weights

    require_memory(Settings(bundle=dense), needed)
    with pytest.raises(StartError, match=r"its 3 clients are whole differences.*deliver low-rank updates") as raised:
        require_memory(Settings(bundle=dense), needed - 1)
    assert str(raised.value).startswith(f"{dense}: ")
    assert "\n" not in str(raised.value)


def test_a_second_copy_and_another_device_count(dense: Path):
    """A model that is scored in another dtype is there twice, and one on a GPU is not in this memory."""
    sizes = sizes_of(dense)
    twice = Settings(bundle=dense, serve_dtype="bfloat16")

    require_memory(twice, sizes.dense_bytes + 12 * sizes.weights)
    with pytest.raises(StartError):
        require_memory(twice, sizes.dense_bytes + 12 * sizes.weights - 1)
    require_memory(Settings(bundle=dense, gpus_per_replica=1), sizes.dense_bytes)
    scorers = twice.model_copy(update={"scorers": 1})  # which have the other copy, where they are
    require_memory(scorers, sizes.dense_bytes + 4 * sizes.weights)
    with pytest.raises(StartError):
        require_memory(scorers, sizes.dense_bytes + 4 * sizes.weights - 1)
    engine = EngineSettings(kind="openai", url="http://127.0.0.1:8001")  # which has its own copy elsewhere
    require_memory(twice.model_copy(update={"engine": engine}), sizes.dense_bytes + 8 * sizes.weights)


def test_what_a_model_is_decoded_quickly_with_counts(dense: Path, monkeypatch: pytest.MonkeyPatch):
    """A copy of its layers' weights lies beside it, of a bound that the page tells."""
    sizes = sizes_of(dense)
    assert 2 << 30 == PACKED_BYTES
    monkeypatch.setattr("deployment.cluster.machine.PACKED_BYTES", 1000)

    require_memory(Settings(bundle=dense), sizes.dense_bytes + 4 * sizes.weights + 1000)
    with pytest.raises(StartError):
        require_memory(Settings(bundle=dense), sizes.dense_bytes + 4 * sizes.weights + 999)


def test_a_model_beside_another_needs_what_is_free(low_rank: Path):
    """Low-rank or not, it is there twice until the other leaves; on a GPU it takes nothing of this memory."""
    sizes = sizes_of(low_rank)
    settings = Settings(bundle=low_rank)

    require_room(settings, 8 * sizes.weights, bundle=low_rank)
    with pytest.raises(
        StartError, match=r"beside what is served, and .* GiB are free: start the service again"
    ) as told:
        require_room(settings, 8 * sizes.weights - 1, bundle=low_rank)
    assert str(told.value).startswith(f"{low_rank}: ")
    require_room(Settings(bundle=low_rank, gpus_per_replica=1), 0, bundle=low_rank)


@pytest.mark.parametrize(
    ("version", "limit", "used", "cached"),
    [
        (0, "memory.max", "memory.current", "active_file 300\ninactive_file 1200\n"),
        (1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file 300\ntotal_inactive_file 1200\n"),
    ],
)
def test_what_is_free_is_what_the_kernel_and_the_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, limit: str, used: str, cached: str
):
    """The less of the two, in both kinds of containers; what one has cached of files is free, and no bound is none."""
    groups = machine._GROUPS
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(machine, "_MEMINFO", meminfo)
    monkeypatch.setattr(machine, "_GROUPS", ((tmp_path / groups[version][0].name, *groups[version][1:]),))
    for told in (None, "MemTotal: 16000 kB\n"):
        if told:
            meminfo.write_text(told)
        assert machine._free_bytes() is None
    meminfo.write_text("MemTotal:       16000 kB\nMemAvailable:    9000 kB\n")
    assert 9000 * 1024 == machine._free_bytes()
    (tmp_path / used).write_text("4000\n")
    (tmp_path / "memory.stat").write_text(f"anon 100\n{cached}")
    for bound, free in (("max\n", 9000 * 1024), ("5000\n", 2500), ("99999999\n", 9000 * 1024)):
        (tmp_path / limit).write_text(bound)
        assert free == machine._free_bytes()


def test_this_machine_says_what_is_free():
    """What is asked where a replica runs is asked of the kernel, which has an answer here."""
    free = machine._free_bytes()
    assert free is not None
    assert 0 < free < machine._memory_bytes()


def test_low_rank_updates_fit_anywhere(low_rank: Path):
    """They are never multiplied out; of a model that is too large itself, its loading tells."""
    require_memory(Settings(bundle=low_rank), 1)


def test_the_memory_of_this_machine_is_known(dense: Path):
    """That of the small bundle it has."""
    require_memory(Settings(bundle=dense))
