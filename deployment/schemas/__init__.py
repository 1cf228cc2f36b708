"""What crosses the wire as pydantic models; the OpenAPI document is made of them.

Of OpenAI's API, with attribution, `requests` come in and `responses` go out. Of the operator API there is a module for
each of its parts. Knows the shapes on the wire, nothing of who may ask or of how an answer is made.
"""

from deployment.schemas.requests import AttributionLevel, ChatRequest, CompletionRequest
from deployment.schemas.responses import (
    Attribution,
    ClientShare,
    ModelList,
    ModelObject,
    TokenAttribution,
    Usage,
    UsageAttribution,
)

__all__ = [
    "Attribution",
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
