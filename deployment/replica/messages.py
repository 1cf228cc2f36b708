"""What crosses between the ingress and a replica: one job in, events out, all plain frozen data that pickles.

Knows neither HTTP nor torch; a web request never crosses, and neither does an exception.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deployment.errors import ApiError, InternalError, InvalidRequestError, OverloadedError, UnavailableError
from deployment.schemas.openai_requests import ChatRequest, CompletionRequest
from rewards.credit import top_client

_ERRORS: tuple[type[ApiError], ...] = (InvalidRequestError, OverloadedError, InternalError, UnavailableError)


@dataclass(frozen=True)
class ModelCard:
    """What a replica serves: the consortium's id, the hash of its global model, its clients, its context in tokens.

    `fault` is why it is not what was published last; None where it is.
    """

    name: str
    global_sha256: str
    client_ids: tuple[str, ...]
    context_length: int
    fault: str | None = None


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation: role `system`, `user` or `assistant`, and its text."""

    role: str
    content: str = field(repr=False)  # what an error prints of a job is no prompt


@dataclass(frozen=True)
class PromptIds:
    """A prompt that its application encoded by itself: the ids of its tokens, as they stand."""

    ids: tuple[int, ...] = field(repr=False)


Prompt = tuple[ChatMessage, ...] | str | PromptIds
"""A conversation, a text, or token ids."""


def prompt_of(request: ChatRequest | CompletionRequest) -> Prompt:
    """What a request asks to be continued: a conversation, a text or token ids.

    `developer` is OpenAI's newer name for `system`; chat templates know the older one.
    """
    if isinstance(request, ChatRequest):
        roles = {"developer": "system"}
        return tuple(ChatMessage(roles.get(each.role, each.role), each.text) for each in request.messages)
    return request.prompt if isinstance(request.prompt, str) else PromptIds(request.prompt)


@dataclass(frozen=True)
class Job:
    """One response to make. `prompt` is a conversation, plain text or token ids; `application` is who has its key.

    `streamed` when the application sees text before the end, so that a crash cuts a response that was seen in part.
    `attributed` when its end tells the credit, and so waits for the score; `token_level` when it tells that by token.
    `weight` is how much of a busy replica the application gets, against others that have 1. `top_logprobs` is how many
    likely tokens are told of at each place, beside the one chosen; None tells no log-probabilities. `with_token_ids`
    when the ids of its tokens and of its prompt's are told. `model` is the name under which it is asked for; a replica
    serves only one.
    """

    response_id: str
    application: str
    created_at_us: int
    prompt: Prompt = field(repr=False)
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    token_level: bool
    streamed: bool
    weight: int = 1
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    top_logprobs: int | None = None
    attributed: bool = True
    with_token_ids: bool = False
    model: str = ""


@dataclass(frozen=True)
class Admitted:
    """The request can be answered and has a place: nothing of the request itself stands in the way any more."""


@dataclass(frozen=True)
class Report:
    """How a replica is: what it serves, and what it stands on that is lost, as (code, message)."""

    card: ModelCard
    lost: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LikelyToken:
    """A token that might have come: its text, its bytes (which may be a part of a character), its log-probability.

    `token_id` is None only in an answer that an earlier version kept.
    """

    token: str
    bytes: tuple[int, ...]
    logprob: float
    token_id: int | None = None


@dataclass(frozen=True)
class TokenLogprob(LikelyToken):
    """A token that came, with the likeliest at its place, likeliest first."""

    top: tuple[LikelyToken, ...] = ()


@dataclass(frozen=True)
class TokenIds:
    """Ids of tokens of a response that were not told before; with the first of them those of its `prompt`."""

    ids: tuple[int, ...] = field(repr=False)
    prompt: tuple[int, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Delta:
    """Text that follows what was sent before; never the last of a response, which waits for its receipt.

    `logprobs` are of the tokens whose text begins in it, where the job asks for them, and `token_ids` of those that
    came since the last one.
    """

    text: str = field(repr=False)
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)
    token_ids: TokenIds | None = None

    def after(self, earlier: "Delta") -> "Delta":
        """Both as one piece."""
        ids = _join_ids(earlier.token_ids, self.token_ids)
        return Delta(earlier.text + self.text, earlier.logprobs + self.logprobs, ids)


@dataclass(frozen=True)
class TokenCredit:
    """One generated token: its piece of text, each client's part of its credit, and each client's signed score.

    `shares` and `base_share` sum to 1; `scores` are in nats under the `credit` preset.
    """

    token: str
    token_id: int
    shares: Mapping[str, float]
    scores: Mapping[str, float]
    base_share: float

    @property
    def top_client(self) -> str | None:
        """Whose it is, as `rewards.credit.top_client` has it."""
        return top_client(self.scores, self.base_share)


@dataclass(frozen=True)
class Summary:
    """The booked credit of a response: shares of the clients and of the base (sum 1), and micro-credits by account."""

    receipt_id: str
    method: str
    shares: Mapping[str, float]
    base_share: float
    credit: Mapping[str, int]
    completeness_error: float | None


@dataclass(frozen=True)
class Finished:
    """The end of a response, sent only after its receipt is durable, or the tokens of which it will be made.

    `text`, `logprobs` and `token_ids` are what had been held back. `summary` is None where the application did not ask
    for attribution. `booked` when the receipt is in the ledger already, and not still to be made or in the spool alone.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    summary: Summary | None
    tokens: tuple[TokenCredit, ...]
    booked: bool = True
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)
    token_ids: TokenIds | None = None

    def after(self, delta: Delta) -> "Finished":
        """The same end, with a piece that was not sent before it."""
        ids = _join_ids(delta.token_ids, self.token_ids)
        return replace(self, text=delta.text + self.text, logprobs=delta.logprobs + self.logprobs, token_ids=ids)


@dataclass(frozen=True)
class Failed:
    """The end of a response that cannot be had; `status` is the HTTP status it would be answered with.

    `credited` when tokens of it were booked all the same, and `hopeless` when the same request would end so again: then
    a caller shall not try again by itself.
    `is_open` when whoever tells it does not know what came of the response: its receipt may yet be booked.
    """

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after_s: int | None = None
    credited: bool = False
    hopeless: bool = False
    is_open: bool = False

    def error(self) -> ApiError:
        """The same failure as an exception of the service.

        Raises:
            KeyError: when the status is none that a replica may give.
        """
        kind = {error.status: error for error in _ERRORS}[self.status]
        return kind(
            self.message,
            param=self.param,
            code=self.code,
            retry_after_s=self.retry_after_s,
            should_retry=False if self.credited or self.hopeless else None,
        )


def _join_ids(first: TokenIds | None, second: TokenIds | None) -> TokenIds | None:
    if first is None or second is None:
        return first or second
    return TokenIds(first.ids + second.ids, first.prompt)


Event = Admitted | Delta | Finished | Failed
