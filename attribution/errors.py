"""The exceptions of this package, one small tree; every message names the thing and says what would be right.

    AttributionError
    ├── BundleError      a consortium on disk that is missing, altered, or does not add up
    ├── RoundsError      recorded rounds that are missing, altered or do not follow each other, or cannot be recorded
    ├── RecipeError      a recipe or a question–answer file that cannot be trained from
    ├── ModelError       a base model that cannot be found, or whose layers cannot be resolved
    ├── PromptError      a prompt or a sampling setting that cannot be decoded
    │   └── ContextLengthError   prompt and response exceed what the model can read
    ├── ScoreError       a score that is not a finite number: nothing may be paid on it
    └── DestinationError  a place where nothing can be written, or where something of others' would be lost

Knows nothing of HTTP statuses or exit codes: `deployment` decides those.
"""


class AttributionError(Exception):
    """Base of every error this package raises on purpose."""


class BundleError(AttributionError):
    """The bundle on disk is missing, altered, malformed, or its parts do not add up."""


class RoundsError(AttributionError):
    """Recorded rounds are missing, altered, or do not follow each other; or what would be recorded means nothing."""


class RecipeError(AttributionError):
    """The recipe, or a client's question–answer file, is malformed."""


class ModelError(AttributionError):
    """The base model cannot be found or loaded, or its layers cannot be resolved by name."""


class PromptError(AttributionError):
    """The prompt or a sampling setting cannot be decoded; `parameter` names the offending field."""

    def __init__(self, message: str, parameter: str = "messages") -> None:
        super().__init__(message)
        self.parameter = parameter


class ContextLengthError(PromptError):
    """The prompt, with what may be generated after it, exceeds the model's context."""


class ScoreError(AttributionError):
    """A score, or what a token is chosen by, is NaN or infinite, so nothing may be booked from it."""


class DestinationError(AttributionError):
    """Output cannot go where it was sent: nothing can be written there, or something of others' would be lost."""
