"""The federated model in memory: the served network with its tokenizer, and what each client changed.

Does not decode and does not score; `decode` and `attribute` do, with what they find here.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from attribution.base.layers import first_changed_block, resolve_layers
from attribution.base.linear_products import speed_up
from attribution.base.references import load_model, load_tokenizer
from attribution.base.tokenizer import longest_token_bytes, panics_raised
from attribution.bundle.bundle import Bundle, open_bundle
from attribution.bundle.manifest import Manifest
from attribution.bundle.updates import Update
from attribution.errors import BundleError, ContextLengthError, ModelError, PromptError
from attribution.scoring.paper_preset import LastRound
from attribution.scoring.path import UpdatePath

DType = Literal["float32", "bfloat16", "float16"]
"""What a network can be loaded in."""


class FederatedModel:
    """A bundle, loaded for serving.

    Attributes:
        network: the global model, frozen, in the dtype in which it decodes.
        scored: the same in the dtype in which it scores; the same network where that is the same dtype.
        layers: its named parts.
        first_block: the first block that any client changed; None where the embedding was changed.
    """

    def __init__(self, bundle: Bundle, network: Any, tokenizer: Any, scored: Any = None) -> None:
        self.bundle = bundle
        self.network = network
        self.scored = network if scored is None else scored
        self.tokenizer = tokenizer
        self.layers = resolve_layers(network)
        _require_fit(network, bundle.updates, bundle.path)
        changed = set().union(*(update.parameters() for update in bundle.updates.values()))
        self.first_block = first_changed_block(network, changed)

    @classmethod
    def load(
        cls, path: Path, *, device: str = "cpu", dtype: DType = "float32", score_dtype: DType | None = None
    ) -> "FederatedModel":
        """Open the bundle at `path`, check its hashes, and load the global model on `device`, in `dtype`.

        Half precision decodes faster where the machine has units for it (AMX, GPUs), and its log-probabilities are
        rounded as its logits are. What money follows from is scored in `score_dtype`, by a second network where that is
        another dtype; None is the same.

        Raises:
            BundleError: the bundle is missing, altered or malformed.
            ModelError: the model cannot be loaded in `dtype`, or its architecture is not supported.
        """
        for name in (dtype, score_dtype or dtype):
            if name not in get_args(DType):
                raise ModelError(f"dtype is {name!r}; it must be one of {', '.join(get_args(DType))}")
        bundle = open_bundle(path)
        networks = []
        for name in dict.fromkeys((dtype, score_dtype or dtype)):
            network = load_model(bundle.global_path, device=device, dtype=getattr(torch, name))
            if network.device.type == "cpu":
                speed_up(network)
            networks.append(network)
        return cls(bundle, networks[0], load_tokenizer(bundle.global_path), networks[-1])

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def name(self) -> str:
        """The consortium's id, under which the model is served."""
        return self.manifest.consortium

    @property
    def global_sha256(self) -> str:
        """Hash of the served weights."""
        return self.manifest.global_.sha256

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Client ids in the manifest's order."""
        return self.bundle.client_ids

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    @property
    def dtype(self) -> str:
        """What the network computes in, such as `float32`."""
        return str(self.network.dtype).removeprefix("torch.")

    @property
    def context_length(self) -> int:
        """Tokens that prompt and response may have together."""
        return int(self.network.config.max_position_embeddings)

    @property
    def backend_tokenizer(self) -> Any:
        """The fast tokenizer of the `tokenizers` library."""
        return self.tokenizer.backend_tokenizer

    @cached_property
    def end_token_ids(self) -> set[int]:
        """Tokens that end a response."""
        ends = self.network.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {end for end in (*ends, self.tokenizer.eos_token_id) if end is not None}

    @cached_property
    def path(self) -> UpdatePath:
        """The line base → global."""
        updates = [update.to(self.device) for update in self.bundle.updates.values()]
        return UpdatePath(self.scored, updates, self.first_block)

    @cached_property
    def last_round(self) -> LastRound:
        """The last round's client weights, for the `paper` preset."""
        updates = {client: update.to(self.device) for client, update in self.bundle.last_round.items()}
        if not updates:
            raise BundleError(f"{self.bundle.path}: no client has last-round weights, which the paper preset needs")
        _require_fit(self.network, updates, self.bundle.path)
        weights = {client.id: client.weight for client in self.manifest.clients if client.id in updates}
        tied = self.network.lm_head.weight is self.network.get_input_embeddings().weight
        return LastRound(updates, weights, "model.embed_tokens.weight" if tied else "lm_head.weight")

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation in the model's chat template, ready for the assistant's answer.

        Raises:
            PromptError: the model has no chat template, or the template refuses the messages.
            ContextLengthError: they are certainly too long for the model's context.
        """
        if self.tokenizer.chat_template is None:
            raise PromptError(f"model {self.name!r} has no chat template; use text completions", "model")
        if not messages:
            raise PromptError("messages is empty; at least one message is needed")
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, tokenize=False
            )
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a template is a program of the model's maker: it raises what it likes
            raise PromptError(f"the model's chat template refuses these messages: {error}") from error
        return self._encode(text, "messages", add_special_tokens=False)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text as it stands.

        Raises:
            PromptError: it is not valid text.
            ContextLengthError: it is certainly too long for the model's context.
        """
        return self._encode(text, "prompt", add_special_tokens=True)

    def _encode(self, text: str, parameter: str, *, add_special_tokens: bool) -> list[int]:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:  # half of a surrogate pair
            raise PromptError("the prompt is not valid text", parameter) from error
        if self._most_bytes is not None and size > self._most_bytes:
            raise ContextLengthError(
                f"the prompt has {size} bytes, but {self._most_bytes} at most fit the model's context of"
                f" {self.context_length} tokens",
                parameter,
            )
        with panics_raised():
            return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    @cached_property
    def _most_bytes(self) -> int | None:
        """Bytes beyond which a text cannot fit the context, so that it need not be tokenised to know."""
        longest = longest_token_bytes(self.backend_tokenizer)
        return None if longest is None else longest * self.context_length


def _require_fit(network: Any, updates: Mapping[str, Update], path: Path) -> None:
    """Refuse an update that names what the model does not have, or has another shape: it could not be scored later."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for client, update in updates.items():
        for name in sorted(update.parameters() - parameters.keys()):
            raise BundleError(f"{path}: client {client!r}: its update changes {name!r}, which the model does not have")
        for module, low_rank in update.low_rank.items():
            layer, shape = network.get_submodule(module), (low_rank.B.shape[0], low_rank.A.shape[1])
            if not isinstance(layer, nn.Linear) or tuple(layer.weight.shape) != shape:
                raise BundleError(f"{path}: client {client!r}: factors of shape {shape} do not fit layer {module!r}")
        for name, difference in update.dense.items():
            if difference.shape != parameters[name].shape:
                raise BundleError(f"{path}: client {client!r}: update of {name!r} has shape {tuple(difference.shape)}")
