"""Adapters of two members: imported, verified, attributed, served and paid, by the commands as they are typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model

from attribution.base.references import load_model
from tests.attribution.consortia import base_model, save_base
from tests.end_to_end.service import new_ledger, once_booked, service
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.slow
MEMBERS = {"north": 2, "south": 1}
ANSWERS = 4


def protoken(folder: Path, *words: str) -> str:
    """What a command prints, which ends well."""
    ran = subprocess.run(
        [sys.executable, "-m", "deployment.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A base model, and an adapter of each member as PEFT saves it, trained to some weights."""
    save_base(base_model("llama", max_position_embeddings=2048), tmp_path / "base")
    for seed, member in enumerate(MEMBERS):
        model = get_peft_model(load_model(tmp_path / "base"), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        generator = torch.Generator().manual_seed(seed)
        for name, factor in model.named_parameters():
            if "lora_B" in name:
                factor.data = torch.randn(factor.shape, generator=generator)
        model.save_pretrained(tmp_path / member, save_embedding_layers=False)
    return tmp_path


def test_adapters_are_imported_verified_attributed_served_and_paid(place: Path) -> None:
    """To a settlement whose payouts, the members' and the commons', sum to the pool."""
    clients = [word for member, weight in MEMBERS.items() for word in ("--client", f"{member}={member}:{weight}")]
    protoken(place, "consortium", "import", "--base", "path:base", "--out", "bundle", *clients)
    verified = json.loads(protoken(place, "consortium", "verify", "bundle", "--json"))
    told = ("--prompt", "hi", "--max-new-tokens", "5", "--json")
    attributed = json.loads(protoken(place, "attribute", "--bundle", "bundle", *told))
    (place / "policy.yaml").write_text("{pool: 1000, currency: EUR}\n")
    ledger = new_ledger(place)
    with service(place / "bundle", ledger, place / "serve.log") as running:
        headers = {"Authorization": f"Bearer {running.application}"}
        body = {"model": "consortium", "prompt": "Hello", "max_tokens": 8, "temperature": 2.0}
        for seed in range(ANSWERS):
            answer = httpx.post(
                f"{running.address}/v1/completions", json=body | {"seed": seed}, headers=headers, timeout=PATIENCE_S
            )
            assert 200 == once_booked(running, answer).status_code, answer.text
    settled = json.loads(
        protoken(place, "period", "close", "first", "--policy", "policy.yaml", "--ledger", ledger, "--json")
    )
    payouts = {line["account"]: int(line["payout"]) for line in settled["lines"]}

    assert [] == verified["problems"]
    assert MEMBERS.keys() == attributed["shares"].keys()
    assert pytest.approx(1) == sum(attributed["shares"].values()) + attributed["base_share"]
    assert {*MEMBERS, "commons"} == payouts.keys()
    assert 1000 == sum(payouts.values())
    assert all(payouts[member] > 0 for member in MEMBERS), payouts
