"""A booked response attributed again, by whoever has its prompt and its text, and held against what was booked.

A receipt commits to numbers: to its tokens' count, the model, the method with its settings, each client's score and the
gain over the base model, from which its credit follows. It commits to no hash of prompt and text, so that nobody who
has the books can try whether somebody asked a thing. That prompt and text are the booked ones is therefore not proven
by a hash; another prompt or text has another gain and other scores, and these are compared as the credit is.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attribution.attribute import VERSION, credit_in_pieces
from attribution.bundle.bundle import manifest_of, manifest_sha256
from attribution.errors import BundleError
from attribution.model import FederatedModel
from attribution.records import AttributedResponse
from attribution.scoring.credit_preset import repeated_efforts
from attribution.scoring.interruptible import run
from attribution.teacher_forcing import generation_of
from deployment.errors import RecomputationError
from deployment.replica.prompt_encoding import encode
from deployment.replica.scoring.exchange import ReceivedAnswer, SentRequest
from rewards.credit import PENDING, REVERSAL, receipt_amounts
from rewards.store.receipts import BookedReceipt

CREDIT_BOUND = {"float32": 100, "bfloat16": 150_000}
"""By the numbers that a response was scored in: micro-credits a token by which an account may differ.

Measured by `python -m tests.benchmarks.recomputation` (`make bench-recompute`) on processors. In float32, which is the
default, 66 served answers of the demo's 135M model differed by 2.2 at most, whether 32, 8 or 1 were decoded at once, by
short prompts and long ones, and small models of each family by 0.6. In bfloat16 42 of the demo's answers differed by
55 707.
"""
SCORE_BOUND = {"float32": 1e-4, "bfloat16": 0.3}
"""Likewise: nats a token by which a client's score and the gain may differ; by 6.0e-6 and 0.098 they did."""
METHOD = "credit"
_NEEDED = {"dtype", "nodes", "temperature"}
_EVIDENCE = {"response_scores", "gain"}


@dataclass(frozen=True)
class Recomputation:
    """What was booked of a response, and what it comes to again.

    Attributes:
        receipt: as it was booked.
        amounts: account -> micro-credits now.
        response: its scores, shares and gain now.
        ids_told: whether the application had been told its token ids; else they are those of its text.
    """

    receipt: BookedReceipt
    amounts: Mapping[str, int]
    response: AttributedResponse
    ids_told: bool

    @property
    def differences(self) -> dict[str, int]:
        """Account -> micro-credits by which it comes to more now than was booked."""
        booked = self.receipt.amounts
        return {
            account: self.amounts.get(account, 0) - booked.get(account, 0)
            for account in sorted({*booked, *self.amounts})
        }

    @property
    def credit_difference(self) -> int:
        """The greatest of them, either way."""
        return max(abs(difference) for difference in self.differences.values())

    @property
    def score_difference(self) -> float:
        """Nats by which the gain, or the score of the client that differs most, is another now."""
        booked = self.receipt.measurement
        scores: Mapping[str, float] = booked["response_scores"]
        now = self.response.response_scores
        gain = float(booked["gain"])
        differences: list[float] = [abs(now.get(client, 0.0) - scores.get(client, 0.0)) for client in {*now, *scores}]
        return max(abs((self.response.gain or 0.0) - gain), *differences)

    @property
    def credit_bound(self) -> int:
        """Micro-credits of this response by which an account may differ."""
        return CREDIT_BOUND[self.receipt.settings["dtype"]] * self.receipt.tokens

    @property
    def score_bound(self) -> float:
        """Nats of this response likewise."""
        return SCORE_BOUND[self.receipt.settings["dtype"]] * self.receipt.tokens

    @property
    def agrees(self) -> bool:
        """Whether credit and scores are what was booked, within the bounds."""
        return self.credit_difference <= self.credit_bound and self.score_difference <= self.score_bound


def require_recomputable(receipt: BookedReceipt) -> None:
    """Refuse a receipt that cannot be attributed again, before any model is loaded.

    Raises:
        RecomputationError: says why.
    """
    name, measurement, settings = receipt.response_id, receipt.measurement, receipt.settings
    if receipt.kind != "response":
        raise RecomputationError(f"{name!r} is a reversal: recompute what it reverses, {name.removeprefix(REVERSAL)!r}")
    if PENDING in receipt.amounts:
        raise RecomputationError(f"{name!r} was not measured: its credit is settled with its period by those that were")
    if "unattributed" in measurement:
        raise RecomputationError(f"{name!r} was never attributed ({measurement['unattributed']}): all is the commons'")
    if receipt.method != METHOD:
        raise RecomputationError(
            f"{name!r} was attributed by {receipt.method!r}, for which no bound was measured; {METHOD!r} has one"
        )
    if receipt.version != VERSION:
        raise RecomputationError(
            f"{name!r} was attributed by version {receipt.version} of the rule, and this protoken has {VERSION}: take "
            "one of that time"
        )
    if not (settings.keys() >= _NEEDED and measurement.keys() >= _EVIDENCE):
        raise RecomputationError(f"the receipt of {name!r} does not say how it was scored: no replica booked it")
    if settings["dtype"] not in CREDIT_BOUND:
        raise RecomputationError(f"{name!r} was scored in {settings['dtype']}, for which no bound was measured")


def require_same_request(receipt: BookedReceipt, request: SentRequest) -> None:
    """Refuse a request that plainly is another than a receipt's.

    Raises:
        RecomputationError: says by what.
    """
    name, settings = receipt.response_id, receipt.settings
    if request.model != receipt.consortium:
        raise RecomputationError(f"the request asks model {request.model!r}, and {name!r} is of {receipt.consortium!r}")
    if (request.temperature or 1.0) != settings["temperature"]:
        raise RecomputationError(
            f"the request asks for temperature {request.temperature:g}, and {name!r} was scored at "
            f"{settings['temperature']:g}: it is another request"
        )


def require_bundle(folder: Path, receipt: BookedReceipt, manifests: Collection[str]) -> None:
    """Refuse another bundle than the one that a response was attributed with.

    Args:
        folder: of the bundle.
        receipt: of the response.
        manifests: hashes of the manifests that its model was published with; none where it never was.

    Raises:
        BundleError: it is another, or none.
    """
    manifest, name = manifest_of(folder), receipt.response_id
    if manifest.consortium != receipt.consortium:
        raise BundleError(f"{folder} is of consortium {manifest.consortium!r}, and {name!r} of {receipt.consortium!r}")
    if manifest.global_.sha256 != receipt.model_sha256:
        raise BundleError(
            f"{folder} holds model {manifest.global_.sha256}, and {name!r} was made by {receipt.model_sha256}"
        )
    digest = manifest_sha256(folder)
    if manifests and digest not in manifests:
        raise BundleError(
            f"the manifest of {folder} has SHA-256 {digest}, and {', '.join(sorted(manifests))} was published with its "
            "model"
        )


def recompute(
    model: FederatedModel, receipt: BookedReceipt, request: SentRequest, answer: ReceivedAnswer
) -> Recomputation:
    """Attribute a response again, in the numbers and with the nodes that its receipt names.

    Where a text leaves open by which tokens it ended, or a receipt by which rule its nodes were chosen, the likeliest
    is tried first, and what comes nearest is returned.

    Args:
        model: of the bundle that made it, in the dtype that it was scored in.
        receipt: of the response, which is recomputable.
        request: its request.
        answer: its text or its tokens.

    Raises:
        RecomputationError: the text has not the tokens that were booked.
        PromptError: the prompt cannot be read by this model.
        ScoreError: a score is no number.
    """
    prompt_ids = encode(model, request.prompt)
    nearest: Recomputation | None = None
    for token_ids in _likely_ids(model, receipt, request, answer):
        for effort in repeated_efforts(receipt.settings["nodes"]):
            generation = generation_of(prompt_ids, token_ids, receipt.settings["temperature"])
            response = run(credit_in_pieces(model, generation, effort=effort))
            amounts = receipt_amounts(receipt.response_id, receipt.tokens, response.shares, response.base_share)
            made = Recomputation(receipt, amounts, response, answer.token_ids is not None)
            if made.agrees:
                return made
            if nearest is None or made.score_difference < nearest.score_difference:
                nearest = made
    assert nearest is not None, "there is a way to read the text, or it was refused"
    return nearest


def _likely_ids(
    model: FederatedModel, receipt: BookedReceipt, request: SentRequest, answer: ReceivedAnswer
) -> Iterator[tuple[int, ...]]:
    """The tokens that a response may have had, likeliest first.

    Raises:
        RecomputationError: none of as many as were booked.
    """
    booked, is_cut = receipt.tokens, bool(receipt.measurement.get("cut"))
    if answer.token_ids is not None:
        if len(answer.token_ids) != booked:
            raise RecomputationError(
                f"the answer tells {len(answer.token_ids)} token ids, and {booked} tokens were booked of "
                f"{receipt.response_id!r}"
            )
        yield answer.token_ids
        return
    likely: list[tuple[int, ...]] = []
    counts = []
    for text in dict.fromkeys((answer.text, answer.text.removesuffix("\n"))):  # editors end a file by a line break
        ids = _ids(model, text)
        counts.append(len(ids))
        if is_cut or len(ids) == booked:
            likely += [ids[:booked]] * (len(ids) >= booked)
        elif len(ids) + 1 == booked:
            likely += [(*ids, end) for end in sorted(model.end_token_ids)]
        likely += [ids for ids in (_ids(model, text + stop) for stop in request.stop) if len(ids) == booked]
    if not likely:
        raise RecomputationError(_why_other(receipt, request, answer, counts[0], is_cut=is_cut))
    yield from dict.fromkeys(likely)


def _ids(model: FederatedModel, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def _why_other(
    receipt: BookedReceipt, request: SentRequest, answer: ReceivedAnswer, tokens: int, *, is_cut: bool
) -> str:
    """Why a text has not the tokens that were booked, as far as that can be told."""
    counted = f"the text has {tokens} tokens, and {receipt.tokens} were booked of {receipt.response_id!r}"
    if is_cut:
        delivered = receipt.measurement.get("delivered")
        had = "what was delivered" if delivered is None else f"the {delivered} that were delivered"
        return f"{counted}, which was cut before its end: {had} are not all that was generated"
    if request.stop:
        return f"{counted}: a stop string ended it, the tokens of which are in no text; give an answer with token ids"
    if "\ufffd" in answer.text:
        return f"{counted}: it ends within a character, which no text holds; give an answer with token ids"
    return f"{counted}: it is another text, or was not split as the tokenizer splits it; give an answer with token ids"
