"""What an application may send: OpenAI's chat and text completions, and our `attribution` field.

Beside OpenAI's ways to sample there are vLLM's `top_k` and `min_p`, and its ways to send and to be told token ids.
Parameters that are not fields here are looked up in `parameters`. Knows nothing of the model that is served.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from deployment.schemas.fields import LARGEST
from deployment.schemas.parameters import refusal, require_supported

AttributionLevel = Literal["none", "summary", "tokens"]

_HARMLESS_IN_MESSAGE = frozenset(
    {
        "annotations",
        "attribution",
        "id",
        "name",
        "parsed",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
    }
)
"""What SDKs and peers add to an answer that comes back as history, and the name of who speaks: left unread."""

LOWEST_TEMPERATURE = 0.01

Text = Annotated[str, Field(min_length=1)]


class StreamOptions(BaseModel):
    """`stream_options`; only `include_usage` means something here."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


def _of_64_bits(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError("must be an integer of 64 bits")
    return value


MOST_TOP_LOGPROBS = 20
"""How many likely tokens are told of at a place, at most."""
MOST_CHOICES = 8
"""How many responses one request may ask for."""

Penalty = Annotated[float, Field(ge=-2, le=2, strict=True)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TopLogprobs = Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS, strict=True)]
Seed = Annotated[
    int, Field(strict=True), AfterValidator(_of_64_bits), WithJsonSchema({"type": "integer", "format": "int64"})
]
"""The format says the range: its ends are numbers that not every reader of JSON keeps exact (RFC 7493, section 2.2)."""


_WITH_DEFAULT = (
    *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "logit_bias", "n", "stop"),
    *("stream", "stream_options", "attribution"),
)
"""Fields of which null asks for the default."""
_LATER = {
    *("top_k", "min_p", "frequency_penalty", "presence_penalty", "logit_bias", "n", "logprobs", "top_logprobs"),
    *("return_token_ids", "return_tokens_as_token_ids"),
}
"""Fields that the first version did not have."""


class _GenerationRequest(BaseModel):
    """What chat and text completions have in common."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: Text
    max_tokens: int | None = Field(default=None, ge=1, le=LARGEST, strict=True)
    temperature: float = Field(default=1.0, ge=0, le=2, strict=True)
    top_p: float = Field(default=1.0, ge=0, le=1, strict=True)
    top_k: Annotated[int, Field(ge=-1, le=LARGEST, strict=True)] = 0
    min_p: float = Field(default=0.0, ge=0, le=1, strict=True)
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    logit_bias: dict[TokenId, Bias] = Field(default_factory=dict)
    n: int = Field(default=1, ge=1, le=MOST_CHOICES, strict=True)
    seed: Seed | None = None
    stop: tuple[Text, ...] = Field(default=(), max_length=4)
    stream: bool = Field(default=False, strict=True)
    stream_options: StreamOptions = StreamOptions()
    attribution: AttributionLevel = "none"

    @field_validator(*_WITH_DEFAULT, mode="before")
    @classmethod
    def _null_is_default(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].get_default(call_default_factory=True) if value is None else value

    @field_validator("top_k")
    @classmethod
    def _all_tokens(cls, value: int) -> int:
        """-1 is vLLM's word for all of them, 0 that of transformers."""
        return max(value, 0)

    @field_validator("temperature")
    @classmethod
    def _near_zero_is_greedy(cls, value: float) -> float:
        """Below 0.01 logits divided by the temperature overflow, and sampling is greedy to the last digit anyway."""
        return value if value >= LOWEST_TEMPERATURE else 0.0

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("attribution", mode="before")
    @classmethod
    def _attribution_switch(cls, value: Any) -> Any:
        """`true` is short for "summary", `false` for none."""
        return {True: "summary", False: "none"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _only_what_is_supported(self) -> Self:
        require_supported(self.model_extra or {})
        return self

    @property
    def understood(self) -> dict[str, Any]:
        """The request as it was understood, by which a repeated one is known.

        What came with a later version is in it only where it asks for something: a key of before stands for the same.
        """
        fields = type(self).model_fields
        silent = {name: fields[name].get_default(call_default_factory=True) for name in _LATER & fields.keys()}
        return {name: value for name, value in self.model_dump().items() if name not in silent or value != silent[name]}

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends in a usage chunk: when asked for, or when attribution is, which travels in it."""
        return self.stream_options.include_usage or self.attribution != "none"

    @property
    def token_limit(self) -> int | None:
        """The most tokens to generate, or None when the request does not say."""
        return self.max_tokens


class TextPart(BaseModel):
    """One part of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


def _unsupported_error(message: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported_content", "{message}", {"message": message})


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


class Message(BaseModel):
    """One message: `developer` is another name for `system`; parts of text are joined."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[TextPart, ...]

    @field_validator("role", mode="before")
    @classmethod
    def _speaks(cls, value: Any) -> Any:
        if value in ("tool", "function"):
            raise _unsupported_error(f"role {value!r} is not supported by this service, which calls no tools")
        return value

    @field_validator("content", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        for part in value if isinstance(value, list) else ():
            kind = part.get("type", "text") if isinstance(part, dict) else "text"
            if kind != "text":
                raise _unsupported_error(
                    f"a content part of type {kind!r} is not supported by this service, which reads text"
                )
        return value

    @model_validator(mode="after")
    def _nothing_else(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name not in _HARMLESS_IN_MESSAGE and not _is_empty(value):
                raise _unsupported_error(f"field {name!r} of a message is not supported by this service")
        return self

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(_GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: tuple[Message, ...] = Field(min_length=1)
    logprobs: bool = Field(default=False, strict=True)
    top_logprobs: TopLogprobs | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=LARGEST, strict=True)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise refusal(
                "contradiction",
                "max_completion_tokens",
                f"max_tokens {self.max_tokens} and max_completion_tokens {self.max_completion_tokens} "
                "contradict each other: give one of them",
            )
        return self

    @field_validator("logprobs", mode="before")
    @classmethod
    def _no_logprobs(cls, value: Any) -> Any:
        return False if value is None or (value == 0 and not isinstance(value, bool)) else value

    @model_validator(mode="after")
    def _logprobs_too(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise refusal("contradiction", "top_logprobs", "top_logprobs is told only where logprobs is true")
        return self

    @property
    def likely_tokens(self) -> int | None:
        """How many likely tokens are told of at each place; None where no log-probabilities are."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def token_limit(self) -> int | None:
        """`max_completion_tokens`, or its older name `max_tokens`."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


def _are_token_ids(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(type(each) is int and 0 <= each < 2**31 for each in value)


class CompletionRequest(_GenerationRequest):
    """`POST /v1/completions`: one prompt, as a string, as token ids, or as a list of one of these.

    As vLLM has it, `return_token_ids` tells the ids of the response's tokens and of the prompt's, and
    `return_tokens_as_token_ids` names tokens by their ids where log-probabilities are told.
    """

    prompt: Text | Annotated[tuple[TokenId, ...], Field(min_length=1)]
    logprobs: TopLogprobs | None = None
    return_token_ids: bool = Field(default=False, strict=True)
    return_tokens_as_token_ids: bool = Field(default=False, strict=True)

    @field_validator("return_token_ids", "return_tokens_as_token_ids", mode="before")
    @classmethod
    def _null_is_no(cls, value: Any) -> Any:
        return False if value is None else value

    @field_validator("logprobs", mode="before")
    @classmethod
    def _no_logprobs(cls, value: Any) -> Any:
        return None if value is False else value

    @property
    def likely_tokens(self) -> int | None:
        """How many likely tokens are told of at each place; None where no log-probabilities are."""
        return self.logprobs

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
            value = value[0]
        if value == "":
            raise refusal("empty_prompt", "prompt", "prompt is empty; at least one character is needed")
        if not isinstance(value, str) and not _are_token_ids(value):
            raise refusal("unsupported_prompt", "prompt", "prompt must be one string, or the token ids of one")
        return value
