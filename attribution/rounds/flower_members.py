"""Which member a SuperNode of Flower is: by its public key, with which it proves itself to the SuperLink.

Partition ids are what a node says of itself, and node ids are drawn anew whenever a node is registered, so neither
tells whose work it is. In the simulation runtime no node has a key: there, members are told apart by node ids, which
whoever writes the server app has to know.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from pydantic import ConfigDict, RootModel

from attribution.errors import RoundsError
from attribution.rounds.documents import Member, read_document
from attribution.rounds.flower_messages import Grid

_PEM = b"-----BEGIN"


class _MembersFile(RootModel[tuple[Member, ...]]):
    """A list of members."""

    model_config = ConfigDict(frozen=True, strict=True)


def read_members(members: str | Path | Sequence[Member]) -> tuple[Member, ...]:
    """Members as they are given, or as the list in a JSON file says.

    Raises:
        RoundsError: the file cannot be read, or a field in it is not as it must be.
    """
    if isinstance(members, str | Path):
        return read_document(Path(members), _MembersFile).root
    return tuple(members)


class NodeDirectory:
    """Whose a node is.

    Attributes:
        members: each with its key in one spelling.
        stranger: why a node is nobody's.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """Tell members apart.

        Raises:
            RoundsError: one has no key, or one that cannot be read.
        """
        by_key = any(member.node_public_key is not None for member in members)
        for member in members:
            if (member.node_public_key is None) == by_key or (member.node is None) != by_key:
                raise RoundsError(
                    f"members: {member.client!r}: each needs the node_public_key of its SuperNode (in a simulation,"
                    " where there are no keys, each needs its node instead)"
                )
        self.members = tuple(
            member.model_copy(update={"node_public_key": _spelt_key(member)}) if by_key else member
            for member in members
        )
        self._by_key = {member.node_public_key: member.client for member in self.members if by_key}
        self._by_node = {member.node: member.client for member in self.members if not by_key}
        what = "public key is none of the members'" if by_key else "id is none of the members' nodes"
        self.stranger = f"its {what}"

    def clients_of(self, grid: Grid) -> dict[int, str]:
        """The clients of the nodes that are there."""
        return {
            node.node_id: client
            for node in grid.get_nodes()
            if (client := self._by_node.get(str(node.node_id)) or self._by_key.get(public_key_line(node.public_key)))
        }


def _spelt_key(member: Member) -> str:
    assert member.node_public_key is not None
    if (line := public_key_line(member.node_public_key.encode())) is None:
        raise RoundsError(
            f"members: {member.client!r}: node_public_key: is no public key; wanted is the line in the .pub file that"
            " `flwr supernode register` was given"
        )
    return line


def public_key_line(key: bytes) -> str | None:
    """A public key, of OpenSSH or PEM, as a line of OpenSSH without a comment; None where it is none."""
    try:
        if key.lstrip().startswith(_PEM):
            public = serialization.load_pem_public_key(key)
        else:
            public = serialization.load_ssh_public_key(key.strip())
        line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return line.decode()
