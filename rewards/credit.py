"""Integer micro-credits: exact splits, receipts and the bytes they are hashed by. Knows no database and no model.

Floats end here. Shares come in as floats and are taken as the exact fractions they are; what leaves is integers
that sum to the whole, always. Evidence (scores, gain) stays float, and is never added up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any

from rewards.errors import CreditError
from rewards.largest_remainder import divide

MICRO_CREDITS_PER_TOKEN = 1_000_000
COMMONS = "commons"
"""The account of what no client earned."""
PENDING = "pending"
"""The account of responses that were not measured; their period settles it in the proportions of those that were."""
SAMPLING = "sampling"
"""Field of a measurement: by which fraction and key it was measured or not; see `rewards.sampled_credit.rule`."""
UNMEASURED = "none"
"""Method and version of a receipt for tokens that nobody measured."""
REVERSAL = "reversal-"
"""How the id of a reversal begins; that of the response it reverses follows."""

_INTEGER_LIMIT = 2**63  # what a BIGINT column holds
_MOMENT_LIMIT = 2**53  # microseconds until the year 2255; up to here every reader of JSON keeps a number exact
_SHARE_TOLERANCE = Fraction(1, 1_000_000)


def split(total: int, weights: Mapping[str, float | Fraction], salt: str) -> dict[str, int]:
    """Split `total` units over accounts in proportion to their weights, by largest remainder.

    Each account gets the whole part of its exact quota; the units left over go one each to the largest remainders.
    Equal remainders are ordered by SHA-256(salt, 0x00, account), so that neither name nor position favours anybody.
    A weight of zero gets exactly zero. The result sums to `total` and keeps the order of `weights`.

    Raises:
        CreditError: `total` is negative, a weight is NaN, infinite or negative (the account is named), or none is
            positive.
    """
    _integer("total", total)
    exact = {account: _fraction(account, weight) for account, weight in weights.items()}
    whole = sum(exact.values(), Fraction(0))
    if whole == 0:
        raise CreditError(f"cannot split {total} units: no account of {sorted(weights)} has a positive weight")
    scale = math.lcm(*(weight.denominator for weight in exact.values()))
    return divide(total, {account: int(weight * scale) for account, weight in exact.items()}, salt)


def top_client(scores: Mapping[str, float], base_share: float) -> str | None:
    """Whose a generated token is: whose score is highest; None where nobody raised it, or all of it is the base's.

    Shares do not tell tokens apart: within each they are in the proportions of the whole response.

    Args:
        scores: client -> the token's signed score.
        base_share: the commons' part of the token.
    """
    top = max(scores, key=scores.__getitem__, default=None)
    return top if top is not None and scores[top] > 0 and base_share < 1 else None


def receipt_amounts(response_id: str, tokens: int, shares: Mapping[str, float], base_share: float) -> dict[str, int]:
    """Micro-credits of one response: `tokens` * 1 000 000 split over the clients' shares and the commons.

    Every client is kept, also with 0: a zero is a statement. Ties are broken by the response id.

    Args:
        response_id: id of the response; salt of the tie-break.
        tokens: number of generated tokens, at least 1.
        shares: client -> share, each ≥ 0.
        base_share: share of the commons; sums to 1 with `shares` within 1e-6.

    Raises:
        CreditError: `tokens` below 1, a client that bears the name of a reserved account, a share that is NaN,
            infinite or negative, or shares that do not sum to 1.
    """
    _tokens(tokens)
    for client in shares:
        if client in (COMMONS, PENDING):
            raise CreditError(f"client {client!r} bears the name of a reserved account; rename the client")
    weights = {**shares, COMMONS: base_share}
    whole = sum((_fraction(account, share) for account, share in weights.items()), Fraction(0))
    if abs(whole - 1) > _SHARE_TOLERANCE:
        raise CreditError(f"shares of response {response_id!r} sum to {float(whole):.9g}, not to 1 within 1e-6")
    return split(tokens * MICRO_CREDITS_PER_TOKEN, weights, response_id)


def pending_receipt(
    *,
    response_id: str,
    created_at_us: int,
    application: str,
    consortium: str,
    model_sha256: str,
    tokens: int,
    measurement: Mapping[str, Any],
    duration_us: int,
) -> Receipt:
    """The receipt of a response that was not to be measured: all of its credit waits on `PENDING` for its period.

    Args are those of `Receipt`; `measurement` is `SamplingRule.evidence`, with whatever else is known.

    Raises:
        CreditError: a field cannot be booked, or the measurement does not say that the response is not measured.
    """
    return Receipt(
        response_id=response_id,
        created_at_us=created_at_us,
        application=application,
        consortium=consortium,
        model_sha256=model_sha256,
        method=UNMEASURED,
        settings={},
        version=UNMEASURED,
        tokens=tokens,
        amounts={PENDING: tokens * MICRO_CREDITS_PER_TOKEN},
        measurement=measurement,
        duration_us=duration_us,
    )


def canonical_bytes(document: Any) -> bytes:
    """The one spelling of a JSON document that is hashed and stored: keys sorted, no spaces, UTF-8.

    Raises:
        CreditError: the document holds NaN, an infinity, or something JSON cannot express.
    """
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise CreditError(f"document has no canonical form: {error}") from error


@dataclass(frozen=True)
class Receipt:
    """The credit of one response, and how it came about.

    Attributes:
        response_id: unique for ever; a response is credited once.
        created_at_us: when the response was generated, in microseconds since 1970, UTC.
        application: key id of the caller, never its secret.
        consortium: id of the consortium whose model answered.
        model_sha256: hash of the global model.
        method: attribution preset.
        settings: the attribution's settings (JSON).
        version: version of the attribution code.
        tokens: generated tokens, at least 1.
        amounts: account -> micro-credits ≥ 0; sums to `tokens` * 1 000 000.
        measurement: evidence (JSON): signed response scores, gain, completeness error, base share; and in `sampling`
            whether it was to be measured, where not everything is.
        duration_us: how long the response took, in microseconds.

    Raises:
        CreditError: a field is of the wrong kind (it is named), the amounts do not sum to the tokens, or go to
            `PENDING` though it was measured, or elsewhere though it was not; or the response bears the id of a
            reversal, which could then not be booked.
    """

    response_id: str
    created_at_us: int
    application: str
    consortium: str
    model_sha256: str
    method: str
    settings: Mapping[str, Any]
    version: str
    tokens: int
    amounts: Mapping[str, int]
    measurement: Mapping[str, Any]
    duration_us: int

    def __post_init__(self) -> None:
        for name in ("response_id", "application", "consortium", "model_sha256", "method", "version"):
            _text(name, getattr(self, name))
        for name in ("created_at_us", "duration_us"):
            _moment(name, getattr(self, name))
        if self.response_id.startswith(REVERSAL):
            raise CreditError(f"response id {self.response_id!r} begins as that of a reversal, {REVERSAL!r}")
        self._check_amounts()
        # Private copies in the form they are stored in: what is hashed is what is written, whatever the caller does.
        object.__setattr__(self, "amounts", dict(self.amounts))
        for name in ("settings", "measurement"):
            object.__setattr__(self, name, json.loads(canonical_bytes(dict(getattr(self, name)))))

    def _check_amounts(self) -> None:
        _tokens(self.tokens)
        for account, amount in self.amounts.items():
            _text("account", account)
            _integer(f"amount of {account!r}", amount)
        is_unmeasured = SAMPLING in self.measurement and not _says_measured(self.measurement[SAMPLING])
        if is_unmeasured != (PENDING in self.amounts) or (is_unmeasured and len(self.amounts) > 1):
            must = "all of it, as it was not measured" if is_unmeasured else "nothing, as it was measured"
            raise CreditError(f"receipt {self.response_id!r} must book {must} to the reserved account {PENDING!r}")
        booked, due = sum(self.amounts.values()), self.tokens * MICRO_CREDITS_PER_TOKEN
        if booked != due:
            raise CreditError(
                f"amounts of receipt {self.response_id!r} sum to {booked}, not to {due} ({self.tokens} tokens)"
            )

    @property
    def payload_sha256(self) -> str:
        """SHA-256 (hex) over every field in canonical form; tells a repeated receipt from a conflicting one."""
        return sha256(canonical_bytes(asdict(self))).hexdigest()


def _says_measured(sampling: Any) -> bool:
    """Whether evidence of sampling says that a response was measured."""
    if isinstance(sampling, Mapping) and set(sampling) == {"fraction", "key_sha256", "measured"}:
        is_text = all(isinstance(sampling[name], str) for name in ("fraction", "key_sha256"))
        if is_text and type(sampling["measured"]) is bool:
            return sampling["measured"]
    raise CreditError(f"{SAMPLING} of a measurement must be as `SamplingRule.evidence` gives it, not {sampling!r}")


def _fraction(account: str, weight: float | Fraction) -> Fraction:
    if isinstance(weight, bool) or not isinstance(weight, int | float | Fraction):
        raise CreditError(f"weight of {account!r} must be a number, not {weight!r}")
    if isinstance(weight, float) and not math.isfinite(weight):
        raise CreditError(f"weight of {account!r} must be finite, not {weight}")
    if weight < 0:
        raise CreditError(f"weight of {account!r} must not be negative, but is {weight}")
    return Fraction(weight)


def _tokens(tokens: int) -> None:
    _integer("tokens", tokens)
    if not 1 <= tokens < _INTEGER_LIMIT // MICRO_CREDITS_PER_TOKEN:
        raise CreditError(f"tokens must be at least 1 and fit the ledger's 64-bit credit, not {tokens}")


def _integer(name: str, value: int) -> None:
    if type(value) is not int or not 0 <= value < _INTEGER_LIMIT:
        raise CreditError(f"{name} must be an integer from 0 to 2**63 - 1, not {value!r}")


def _moment(name: str, value: int) -> None:
    if type(value) is not int or not 0 <= value < _MOMENT_LIMIT:
        raise CreditError(f"{name} must be microseconds from 0 to 2**53 - 1, not {value!r}")


def _text(name: str, value: str) -> None:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise CreditError(f"{name} must be non-empty printable text, not {value!r}")
