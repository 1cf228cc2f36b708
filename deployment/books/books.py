"""The ledger and what stands beside it: what everything in this room works with."""

from dataclasses import dataclass
from pathlib import Path

from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import require_known
from rewards.signing.keys import SigningKey


@dataclass(frozen=True)
class Books:
    """The ledger and what stands beside it.

    Attributes:
        ledger: every figure comes from here.
        keys: bearer keys.
        signing_key: file of the key that signs statements and checkpoints; None where this service has none.
        policy: file of the policy that a period is settled by when a request names none; None where there is none.
    """

    ledger: Ledger
    keys: KeyRing
    signing_key: Path | None = None
    policy: Path | None = None

    def signer(self) -> SigningKey | None:
        """The signing key, read anew: it may have been rotated; None where this service has none.

        Raises:
            SignatureError: the file holds no signing key, or another ledger's, or cannot be read.
        """
        if self.signing_key is None or not self.signing_key.exists():
            return None
        key = SigningKey.load(self.signing_key)
        with self.ledger.database.read() as connection:
            require_known(connection, key.public)
        return key
