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
            served = connection.models()
        except EngineError as error:
            canary.forget()
            raise PartLostError(str(error), "engine_unreachable") from error
        if name not in served:
            canary.forget()
            raise PartLostError(f"the engine serves {', '.join(served) or 'nothing'}, not {name}", "engine_unsuitable")
        canary.require()

    return check
