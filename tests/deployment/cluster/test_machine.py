"""Whether a machine is what a replica's settings say, and has the memory for what its scores read."""

from pathlib import Path

import pytest

from attribution.base.linear_products import PACKED_BYTES
from attribution.bundle.footprint import sizes_of
from deployment.cluster.machine import require_given, require_memory
from deployment.errors import StartError
from deployment.settings import EngineSettings, Settings
from tests.attribution.consortia import base_model, updates, write_consortium


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose updates are whole differences of every parameter."""
    model = base_model("llama")
    return write_consortium(tmp_path_factory.mktemp("dense"), model, updates(model, kind="everything"))


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


def test_low_rank_updates_fit_anywhere(tmp_path: Path):
    """They are never multiplied out; of a model that is too large itself, its loading tells."""
    model = base_model("llama")

    require_memory(Settings(bundle=write_consortium(tmp_path, model, updates(model))), 1)


def test_the_memory_of_this_machine_is_known(dense: Path):
    """That of the small bundle it has."""
    require_memory(Settings(bundle=dense))
