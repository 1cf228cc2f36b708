"""How the network attends is the pass's alone: scores are taken by the same network between steps."""

import pytest

from attribution.decoding.decode import Batch
from attribution.records import Sampling
from tests.attribution import consortia


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A small consortium."""
    return consortia.federated(tmp_path_factory.mktemp("llama"), "llama")


def test_after_a_step_the_network_attends_as_before(llama):
    """To one text at a time, with a mask of its own."""
    before = llama.network.config._attn_implementation
    batch = Batch(llama)
    batch.join("r", llama.encode_text("who?"), Sampling(2))
    batch.step()

    assert before == llama.network.config._attn_implementation


def test_a_pass_that_fails_leaves_it_so_too(llama, monkeypatch):
    """Whatever the network raises."""
    before, seen = llama.network.config._attn_implementation, []

    def fail(*_, **__):
        seen.append(llama.network.config._attn_implementation)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(llama.network.model, "forward", fail)
    batch = Batch(llama)
    batch.join("r", llama.encode_text("who?"), Sampling(2))
    batch.step()

    assert {"r"} == batch.take_failures().keys()
    assert before not in seen
    assert before == llama.network.config._attn_implementation
