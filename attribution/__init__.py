"""Who taught a federated language model what it says.

A *bundle* on disk holds the global model and each client's update (`bundle`, `manifest`, `updates`); `federate` builds
one by real FedAvg rounds, `importers` makes one from what others trained. A `FederatedModel` is a bundle loaded for
serving. A `Batch` decodes with it, capturing on the way what attribution needs; `attribute` turns a finished generation
into signed scores and shares by client, under the preset `paper` or `credit`.

This package knows torch and transformers, and neither databases, HTTP nor money: what leaves it are plain frozen
records. One thread owns a model, its batch and its attribution.
"""

from attribution.attribute import VERSION, attribute
from attribution.bundle import Bundle, open_bundle, verify_bundle
from attribution.decode import Batch
from attribution.errors import (
    AttributionError,
    BundleError,
    ContextLengthError,
    ModelError,
    PromptError,
    RecipeError,
    ScoreError,
)
from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Generation, Sampling, Step

__all__ = [
    "VERSION",
    "AttributedResponse",
    "AttributionError",
    "Batch",
    "Bundle",
    "BundleError",
    "ContextLengthError",
    "FederatedModel",
    "Generation",
    "ModelError",
    "PromptError",
    "RecipeError",
    "Sampling",
    "ScoreError",
    "Step",
    "attribute",
    "open_bundle",
    "verify_bundle",
]
