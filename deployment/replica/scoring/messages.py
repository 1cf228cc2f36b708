"""What crosses between a replica and a scorer: a response as ids, and its score or why there is none."""

from dataclasses import dataclass, field
from pathlib import Path

from attribution.records import AttributedResponse
from deployment.errors import ServiceError


class BundleUnreadError(ServiceError):
    """A scorer cannot read a bundle, for now: it is not there yet, or there is no memory for it."""


Outcome = AttributedResponse | Exception
"""A score, or why this response cannot have one."""


@dataclass(frozen=True)
class UnscoredResponse:
    """A response to score.

    Attributes:
        bundle: folder of the bundle that generated it.
        manifest_sha256: hash of its manifest, which names every file: no other bundle scores it, nor pays others by it.
        prompt_ids: tokens of the prompt.
        token_ids: tokens of the response.
        temperature: at which it was sampled.
        token_level: whether each token is scored too.
        frugal: whether to save memory at the cost of time.
    """

    bundle: Path
    manifest_sha256: str
    prompt_ids: tuple[int, ...] = field(repr=False)
    token_ids: tuple[int, ...] = field(repr=False)
    temperature: float
    token_level: bool
    frugal: bool = False
