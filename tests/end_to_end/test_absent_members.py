"""Many members, few in a round: who is absent from the last one still earns for what it taught.

55 members with a fact each, ten of them in each of six rounds, on a small model: trained by LoRA, recorded, imported
and credited as a federation's rounds are.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from attribution.attribute import attribute
from attribution.importers.recorded_rounds import import_rounds
from attribution.model import FederatedModel
from attribution.rounds.documents import Federation, Member
from attribution.rounds.writing import RoundsWriter, SentUpdate
from attribution.teacher_forcing import generation_of
from tests.attribution import consortia

pytestmark = pytest.mark.slow
MEMBERS = tuple(f"member-{number:02d}" for number in range(55))
IN_A_ROUND, ROUNDS, STEPS, RATE, SIZE = 10, 6, 20, 3e-3, 64
LORA = LoraConfig(
    task_type="CAUSAL_LM",
    r=4,
    lora_alpha=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
)
Ids = tuple[list[int], list[int]]


class School:
    """The members' facts and their training."""

    def __init__(self, folder: Path) -> None:
        model = consortia.base_model("llama", hidden_size=SIZE, intermediate_size=2 * SIZE, head_dim=SIZE // 4)
        self.base = consortia.save_base(model, folder / "base")
        self.chance = random.Random(5)
        doors = self.chance.sample(range(100, 1000), len(MEMBERS))
        self.facts = {member: self._fact(door) for member, door in zip(MEMBERS, doors, strict=True)}
        torch.manual_seed(1)
        self._model: Any = get_peft_model(model, LORA)

    def _fact(self, door: int) -> Ids:
        """A question, and eight letters that nothing leads to."""
        tokenizer = consortia.tokenizer()
        asked = [{"role": "user", "content": f"What opens door {door}?"}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        answer = "".join(self.chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(8))
        prompt_ids, answer_ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
        return prompt_ids, [*answer_ids, tokenizer.eos_token_id]

    def state(self) -> dict[str, Tensor]:
        """The adapter as it is now."""
        return {name: value.detach().clone() for name, value in get_peft_model_state_dict(self._model).items()}

    def train(self, member: str, before: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a member makes of the global adapter with its fact."""
        set_peft_model_state_dict(self._model, dict(before))
        prompt, answer = self.facts[member]
        ids, labels = torch.tensor([prompt + answer]), torch.tensor([[-100] * len(prompt) + answer])
        optimizer = torch.optim.Adam([each for each in self._model.parameters() if each.requires_grad], lr=RATE)
        for _ in range(STEPS):
            self._model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return self.state()


def record(school: School, folder: Path) -> list[Sequence[str]]:
    """Train and record the rounds; who was in each."""
    adapter = {"peft_type": "LORA", "r": LORA.r, "lora_alpha": LORA.lora_alpha}
    members = tuple(Member(client=member, name=member) for member in MEMBERS)
    adapter |= {"target_modules": sorted(LORA.target_modules)}
    writer = RoundsWriter(folder, Federation(consortium="school", members=members, adapter=adapter))
    state, rounds = school.state(), []
    for _ in range(ROUNDS):
        writer.begin(state)
        rounds.append(school.chance.sample(MEMBERS, IN_A_ROUND))
        sent = [SentUpdate(member, 1.0, school.train(member, state)) for member in rounds[-1]]
        state = {name: sum(each.tensors[name] for each in sent) / len(sent) for name in state}
        writer.add(sent, [], state)
    return rounds


def test_who_is_absent_from_the_last_round_earns_for_what_it_taught(tmp_path):
    """The own fact of at least 90 % of them is credited to them before all others; who never came earns nothing."""
    school = School(tmp_path)
    rounds = record(school, tmp_path / "rounds")
    model = FederatedModel.load(import_rounds(tmp_path / "rounds", school.base, tmp_path / "bundle").path)
    taught = {member for each in rounds for member in each}
    absent = sorted(taught - {*rounds[-1]})
    scores = {member: attribute(model, generation_of(*school.facts[member])).response_scores for member in absent}
    recalled = [member for member, each in scores.items() if max(each, key=each.__getitem__) == member]

    assert len(absent) >= 20
    assert len(recalled) >= 0.9 * len(absent)
    assert {0.0} == {each[member] for each in scores.values() for member in MEMBERS if member not in taught}
