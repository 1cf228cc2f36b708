"""What a configuration means is what PEFT makes of it, and no configuration takes longer than seconds."""

import json
import random
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import LlamaForCausalLM

from attribution.errors import BundleError
from attribution.importers import patterns
from attribution.importers.adapter_config import read_configuration
from attribution.importers.patterns import PatternError
from tests.attribution import consortia

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

TARGETS = [
    ["q_proj"],
    ["q_proj", "v_proj", "down_proj"],
    ["self_attn.o_proj", "lm_head"],
    ["layers.1.mlp.up_proj", "k_proj"],
    ["model.layers.2.mlp.gate_proj", "v_proj"],
    ["proj"],
    ["lm_head"],
    None,
    "all-linear",
    "All-Linear",
    r".*\.(q|k|v)_proj",
    r"model\.layers\.\d+\.mlp\.\w+_proj",
    r".*[13].*(up|down)_proj$",
    r"(?i).*Q_PROJ",
    r"(?:.*\.)?layers\.(?!0\.).*o_proj",
]
EXCLUDED = [
    None,
    [],
    ["k_proj"],
    ["model.layers.1.mlp.up_proj"],
    ["1.self_attn.q_proj"],
    r".*\.0\..*",
    r"model\.layers\.[23].*",
]
PATTERNS = [
    "q_proj",
    "v_proj",
    r"layers\.1\..*",
    r".*\.mlp\..*",
    "model.layers.0.self_attn.q_proj",
    "up_proj|o_proj",
    r"[13]\.mlp\.down_proj",
    "proj",
    "x)|(q_proj",
]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """A model whose layers are to be chosen."""
    return consortia.base_model("llama", tied=False)


def _settings(generator: random.Random) -> dict:
    draw, chance = generator.choice, generator.random
    found = {"r": draw([1, 2, 5, 8]), "lora_alpha": draw([1, 7, 16]), "target_modules": draw(TARGETS)}
    found |= {"use_rslora": chance() < 0.4, "exclude_modules": draw(EXCLUDED)}
    if isinstance(found["target_modules"], list) and chance() < 0.5:
        found |= {"layers_to_transform": draw([0, 3, [1, 2], [0, 3], []]), "layers_pattern": draw([None, "layers"])}
        if found["layers_to_transform"] == []:
            del found["layers_pattern"]
    for key, values in (("rank_pattern", [1, 3, 6]), ("alpha_pattern", [1, 5, 24])):
        if chance() < 0.6:
            found[key] = {pattern: draw(values) for pattern in generator.sample(PATTERNS, generator.randint(1, 4))}
    return found


def _by_peft(model: LlamaForCausalLM, settings: dict) -> dict | None:
    """Layers, ranks and scalings as PEFT injects them; None where it refuses."""
    with torch.device("meta"):
        empty = LlamaForCausalLM(model.config)
    try:
        injected = inject_adapter_in_model(LoraConfig(**settings), empty, low_cpu_mem_usage=True)
    except ValueError:
        return None
    layers = {name: layer for name, layer in injected.named_modules() if isinstance(layer, BaseTunerLayer)}
    return {name: (layer.r["default"], pytest.approx(layer.scaling["default"])) for name, layer in layers.items()}


def _written(folder: Path, settings: dict) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", **settings}))
    return path


def test_layers_ranks_and_scalings_are_peft_s(model, tmp_path):
    """40 random configurations, regular expressions among them, choose the layers that PEFT chooses, scaled alike."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    generator, compared = random.Random(seed), 0
    for _ in range(40):
        settings = _settings(generator)
        expected = _by_peft(model, settings)
        found = read_configuration(_written(tmp_path, settings)).layers(model)

        assert (expected or {}) == {name: tuple(scaled) for name, scaled in found.items()}, settings
        compared += expected is not None
    assert compared > 10


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target_modules", "([a-z0-9_.]+)+!"),
        ("target_modules", "a{4294967295}" * 50),
        ("target_modules", "(?:" * 50_000 + "a" + ")" * 50_000),
        ("target_modules", "(" * 90 + "a?" + "){9}" * 90),
        ("exclude_modules", "([a-z0-9_.]+)+!"),
        ("rank_pattern", {"([a-z0-9_.]+)+!": 2}),
        ("alpha_pattern", {"q_proj": 1, "([a-z0-9_.]+)+!": 2}),
        ("alpha_pattern", {f"(([a-z0-9_.]+)+{number})": 2 for number in range(1000)}),
        ("target_modules", "["),
        ("exclude_modules", "(?P<a>x)(?P<a>y)"),
        ("rank_pattern", {"(": 2}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_no_expression_takes_long(model, tmp_path, monkeypatch, key, value):
    """An expression that would run for ever, fill the memory, or is none, is refused by its key within seconds.

    That the shipped bound is kept is seen at one key; at the others it is shorter, so that nobody waits for it again.
    """
    if key != "target_modules":
        monkeypatch.setattr(patterns, "_SECONDS", 1.0)
    configuration = read_configuration(_written(tmp_path, {"target_modules": ["q_proj"], key: value}))
    start = time.monotonic()
    with pytest.raises(PatternError, match=rf"\A{key}: [^\n]{{10,300}}\Z"):
        configuration.layers(model)

    assert time.monotonic() - start < 20


@pytest.mark.parametrize("entries", [200_000])
def test_long_lists_of_names_take_no_longer(model, tmp_path, entries):
    """A list of very many layers is looked up, not gone through for each layer."""
    names = [f"nothing{number}" for number in range(entries)]
    configuration = read_configuration(
        _written(tmp_path, {"target_modules": [*names, "q_proj"], "exclude_modules": names})
    )
    start = time.thread_time()

    assert 4 == len(configuration.layers(model))
    assert time.thread_time() - start < 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 0),
        ("r", -1),
        ("r", True),
        ("r", 2.5),
        ("r", 10**400),
        ("lora_alpha", 10**400),
        ("lora_alpha", "16"),
        ("target_modules", 3),
        ("target_modules", {"a": 1}),
        ("target_modules", ["q_proj", 3]),
        ("exclude_modules", 3),
        ("layers_to_transform", "1"),
        ("layers_to_transform", [1, "2"]),
        ("layers_to_transform", 1.5),
        ("layers_pattern", "h"),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", []),
        ("alpha_pattern", {"q_proj": "1"}),
        ("use_rslora", "yes"),
        ("use_rslora", 1),
        ("base_model_name_or_path", 7),
        ("use_dora", True),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("target_parameters", ["x"]),
        ("some_future_key", "x" * 10_000),
        ("init_lora_weights", ["pissa"]),
        ("init_lora_weights", "pissa_niter_16"),
        ("peft_type", ["LORA"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_value_is_refused_by_its_key(tmp_path, key, value):
    """A value of a wrong type, beyond bounds, or of another kind of adapter is one short line with file and key."""
    path = _written(tmp_path, {"target_modules": ["q_proj"], key: value})
    with pytest.raises(BundleError, match=rf"\A[^\n]*adapter_config\.json: [^\n]*{key}[^\n]*\Z") as refusal:
        read_configuration(path)

    assert len(str(refusal.value)) < 500
