"""A base in another architecture's place computes what it computed, to the last digit, until something trains."""

from pathlib import Path

import pytest
import torch

from attribution.base.references import load_model, resolve_base
from attribution.errors import ModelError
from attribution.evaluation.transplants import TRANSPLANTS, transplant_base
from tests.attribution import consortia

_IDS = torch.tensor([[1, 40, 7, 99, 12, 200, 31, 3], [1, 5, 5, 88, 240, 17, 64, 3]])


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A random Llama of four blocks, whose head is its embedding."""
    return consortia.save_base(consortia.base_model("llama"), tmp_path / "base")


@pytest.mark.parametrize("architecture", TRANSPLANTS)
def test_every_logit_is_the_donor_s(base: str, tmp_path: Path, architecture: str) -> None:
    """From the files, for rows of a batch."""
    donor = load_model(resolve_base(base))
    model = load_model(resolve_base(transplant_base(architecture, tmp_path, base)))

    assert torch.equal(donor(_IDS).logits, model(_IDS).logits)
    assert architecture.partition("-")[0] == model.config.model_type


def test_what_an_architecture_adds_is_there_and_trains_apart(base: str, tmp_path: Path) -> None:
    """Biases of queries, keys and values that begin at zero; a head that is the embedding no longer."""
    qwen2, untied = (load_model(resolve_base(transplant_base(each, tmp_path, base))) for each in TRANSPLANTS)
    biases = {name.split(".")[-2]: value for name, value in qwen2.named_parameters() if name.endswith(".bias")}
    before = untied(_IDS).logits
    with torch.no_grad():
        untied.lm_head.weight += 1.0

    assert {"q_proj", "k_proj", "v_proj"} == set(biases)
    assert not any(value.any() for value in biases.values())
    assert not torch.equal(before, untied(_IDS).logits)
    assert torch.equal(untied.model.embed_tokens.weight + 1.0, untied.lm_head.weight)


def test_it_is_made_once(base: str, tmp_path: Path) -> None:
    """Who asks again is given the same folder, which nobody wrote again."""
    reference = transplant_base("qwen2", tmp_path, base)
    stamps = {file: file.stat().st_mtime_ns for file in resolve_base(reference).iterdir()}

    assert reference == transplant_base("qwen2", tmp_path, base)
    assert stamps == {file: file.stat().st_mtime_ns for file in resolve_base(reference).iterdir()}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """An architecture that is none of them, and weights whose head is their own."""
    other = consortia.save_base(consortia.base_model("llama", tied=False), tmp_path / "untied")
    with pytest.raises(ModelError, match="transplant:mamba: the architecture is not one of qwen2, llama-untied"):
        transplant_base("mamba", tmp_path)
    with pytest.raises(ModelError, match="without biases whose head is its embedding"):
        transplant_base("qwen2", tmp_path, other)
