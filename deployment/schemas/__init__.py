"""OpenAI's chat and text completions as pydantic models, with attribution: `requests` come in, `responses` go out.

Knows the shapes on the wire, nothing of who may ask or of how a response is made.
"""

from deployment.schemas.requests import AttributionLevel, ChatRequest, CompletionRequest
from deployment.schemas.responses import (
    ClientShare,
    ModelList,
    ModelObject,
    TokenAttribution,
    Usage,
    UsageAttribution,
)

__all__ = [
    "AttributionLevel",
    "ChatRequest",
    "ClientShare",
    "CompletionRequest",
    "ModelList",
    "ModelObject",
    "TokenAttribution",
    "Usage",
    "UsageAttribution",
]
