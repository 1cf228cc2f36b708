"""A real vLLM as the engine: the protocol as it speaks it, and the canary over it. Run by `make test-vllm`."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch

from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import Generation, Sampling
from attribution.scoring.interruptible import run
from deployment.replica.engines.canary import Canary, differs
from deployment.replica.engines.connection import Connection
from deployment.replica.engines.decoder import Decoder
from deployment.replica.engines.errors import EngineError
from deployment.replica.engines.remote_batch import RemoteBatch
from tests.benchmarks.vllm.environment import vllm_program
from tests.benchmarks.vllm.server import NAME, vllm_service
from tests.deployment.replica.engines.test_canary import Told
from tests.waiting import until

pytestmark = pytest.mark.slow
PROMPTS = {"row": "1, 4, 7, 10, 13,", "question": "What is the colour of the harbour bell?", "code": "import os\n"}
CANARY_S = 300


@pytest.fixture(scope="module")
def program() -> Path:
    """vLLM, where `make test-vllm` made its environment."""
    folder = os.environ.get("PROTOKEN_VLLM")
    if not folder:
        pytest.skip("PROTOKEN_VLLM names no environment with vLLM; `make test-vllm` makes one")
    return vllm_program(Path(folder))


@pytest.fixture(scope="module")
def model(real_bundle: Path) -> FederatedModel:
    """The real model that two clients trained, with a free rider."""
    return FederatedModel.load(real_bundle)


@contextmanager
def engine(program: Path, weights: Path, folder: Path) -> Iterator[Connection]:
    """A vLLM over those weights."""
    with (
        vllm_service(program, weights, "float32", folder / "vllm.log", quick_start=True) as server,
        closing(Connection(server.address)) as line,
    ):
        yield line


def said_by(decoder: Decoder, prompts: dict[str, list[int]], sampling: Sampling) -> dict[str, Generation]:
    """What it says to each."""
    for name, ids in prompts.items():
        decoder.join(name, ids, sampling)
    while len(decoder):
        decoder.step()
        for error in decoder.take_failures().values():
            raise error
    return {name: decoder.leave(name) for name in prompts}


def test_vllm_is_an_engine_and_its_weights_are_looked_at(program: Path, model: FederatedModel, tmp_path: Path) -> None:
    """It says what we say, tells why it refuses, and passes the canary; without one client's update it does not."""
    prompts = {name: model.encode_text(text) for name, text in PROMPTS.items()}
    sampling = Sampling(24, top_logprobs=2)
    ours = said_by(Batch(model), prompts, sampling)
    with engine(program, model.bundle.global_path, tmp_path) as line:
        batch = RemoteBatch(model, line, NAME)
        theirs = said_by(batch, prompts, sampling)
        same = [ours[name].token_ids == theirs[name].token_ids for name in PROMPTS]
        assert sum(same) >= len(same) - 1, "one may part where two tokens are all but equally likely"
        for name in PROMPTS:
            if ours[name].token_ids == theirs[name].token_ids:
                assert theirs[name].logprobs == pytest.approx(ours[name].logprobs, abs=0.02)
        everything = Sampling(
            12, 0.8, 0.9, 5, top_k=20, min_p=0.05, frequency_penalty=0.5, presence_penalty=0.5, logit_bias={30: 2.0},
            tells_logprobs=False,
        )  # fmt: skip
        assert set(PROMPTS) == said_by(batch, prompts, everything).keys()
        stop = theirs["row"].text[4:7]
        stopped = said_by(batch, {"r": prompts["row"]}, Sampling(24, stop=(stop,), tells_logprobs=False))["r"]
        assert theirs["row"].text.startswith(stopped.text) and stop not in stopped.text
        with pytest.raises(EngineError) as refused:
            said_by(batch, {"far": prompts["row"] * 300}, Sampling(24, tells_logprobs=False))
        assert (400, "engine_refused") == (refused.value.status, refused.value.code)
        assert (False, ()) == _looked_at(model, line)
    lacking = _without(model, model.client_ids[0], tmp_path / "lacking")
    with engine(program, lacking, tmp_path) as line:
        assert (True, model.client_ids[:1]) == _looked_at(model, line)


def _looked_at(model: FederatedModel, line: Connection) -> tuple[bool, tuple[str, ...]]:
    told = Told()
    canary = Canary(model, RemoteBatch(model, line, NAME), lambda work: run(work()), told, 64)
    until(lambda: told.all, CANARY_S)
    comparison = canary.last
    canary.close()
    assert comparison is not None
    return differs(comparison), comparison.other


def _without(model: FederatedModel, client: str, folder: Path) -> Path:
    """A folder of the served weights without one client's update."""
    shutil.copytree(model.bundle.global_path, folder)
    update = model.bundle.updates[client]
    network = model.network
    with torch.no_grad():
        for sign in (-1, 1):
            for name, factors in update.low_rank.items():
                network.get_submodule(name).weight += sign * (factors.B @ factors.A)
            for name, difference in update.dense.items():
                network.get_parameter(name).add_(sign * difference)
            if sign < 0:
                network.save_pretrained(folder)
    return folder
