"""The model with its adapter, and some steps of training it."""

import json
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

LORA = LoraConfig(
    task_type="CAUSAL_LM",
    r=8,
    lora_alpha=48,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    layers_to_transform=list(range(20, 30)),
)
BATCH, RATE = 8, 3e-3


def load(model: str) -> Any:
    """The base model with a fresh adapter, the same for everybody."""
    torch.manual_seed(0)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), LORA)


def state(model: Any) -> dict[str, Tensor]:
    """The adapter's tensors."""
    return {name: value.detach().clone() for name, value in get_peft_model_state_dict(model).items()}


def put_state(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Go on from an adapter's tensors."""
    set_peft_model_state_dict(model, dict(tensors))


def train(model: Any, folder: str, data: Path, steps: int, number: int) -> tuple[int, float]:
    """Train on a member's file; how many examples it has, and the last loss."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    examples = [_encode(tokenizer, line["prompt"], line["response"]) for line in lines]
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=RATE)
    order = islice(cycle(range(len(examples))), number * steps * BATCH, (number + 1) * steps * BATCH)
    loss = torch.zeros(())
    for _ in range(steps):
        loss = _loss(model, [examples[index] for index in islice(order, BATCH)], tokenizer.eos_token_id)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return len(examples), float(loss)


def _encode(tokenizer: Any, prompt: str, response: str) -> tuple[list[int], list[int]]:
    """A question in the chat template, and its answer with the end token."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(asked, add_special_tokens=False)["input_ids"]
    return ids, [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def _loss(model: Any, batch: list[tuple[list[int], list[int]]], padding: int) -> Tensor:
    """Of the answers' tokens alone."""
    width = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.full((len(batch), width), padding)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(batch):
        whole = torch.tensor([*prompt, *answer])
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss
