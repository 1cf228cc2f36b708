"""Whether an engine answers, serves the model that is set, and serves it with the bundle's weights."""

from collections.abc import Callable

from deployment.errors import PartLostError
from deployment.replica.engines.canary import Canary
from deployment.replica.engines.connection import Connection
from deployment.replica.engines.errors import EngineError


def engine_check(connection: Connection, name: str, canary: Canary) -> Callable[[], None]:
    """A check of the part `engine`; one that was away is looked at by the canary again."""

    def check() -> None:
        try:
            require_served(connection, name)
        except PartLostError:
            canary.forget()
            raise
        canary.require()

    return check


def require_served(connection: Connection, name: str) -> None:
    """Return where an engine answers and serves a model of that name.

    Raises:
        PartLostError: it does not.
    """
    try:
        served = connection.models()
    except EngineError as error:
        raise PartLostError(str(error), "engine_unreachable") from error
    if name not in served:
        raise PartLostError(f"the engine serves {', '.join(served) or 'nothing'}, not {name}", "engine_unsuitable")
