"""Where a replica takes calls of other replicas: on its node's own address alone, which is loopback on one machine.

Ray binds that gRPC port to every address of the machine by a constant, and unpickles what comes there without asking
who sends it. Knows Ray Serve's replica module, and nothing of what a replica does.
"""

import ray.util
from ray.serve._private import replica

from deployment.errors import StartError

_EVERYWHERE = "[::]:"
_BIND = "add_port_to_grpc_server"


def listen_on_own_address() -> None:
    """Called within a replica's constructor, after which Serve binds the port; a second call changes nothing.

    Raises:
        StartError: this Ray binds it in another way, so that nobody knows who could reach it.
    """
    bind = getattr(replica, _BIND, None)
    if bind is None:
        raise StartError(f"this version of Ray has no {replica.__name__}.{_BIND}: use the one of constraints.txt")
    if getattr(bind, "is_own_address", False):
        return
    host = ray.util.get_node_ip_address()
    own = f"[{host}]:" if ":" in host else f"{host}:"

    def bound(server: object, address: str, *rest: object, **named: object) -> int:
        port: int = bind(server, address.replace(_EVERYWHERE, own), *rest, **named)
        return port

    bound.is_own_address = True  # type: ignore[attr-defined]
    setattr(replica, _BIND, bound)
