"""Sessions of the console: signed cookies that name a key, and the tokens that protect its forms. Nothing is stored.

A cookie says which key signed in, and not what it may do: that is looked up again with each request. Whoever has the
pepper's file replaced ends every session with it.
"""

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer

from rewards.keys.ring import KeyRing
from rewards.keys.rules import Key

COOKIE: Final = "protoken_session"
LONGEST_S: Final = 8 * 60 * 60
"""How long a session lasts at most: a working day."""
FLASH_S: Final = 60


@dataclass(frozen=True)
class Session:
    """Who signed in. The nonce tells this session from every other of the same key."""

    key_id: str
    nonce: str


class Sessions:
    """What cookies and form tokens are made and read with; two ingresses with the same pepper read each other's.

    Args:
        keys: a key ring with the pepper.

    Raises:
        KeyRingError: it has none.
    """

    def __init__(self, keys: KeyRing) -> None:
        self._cookies = _signer(keys.derive(b"console session"))
        self._flashes = _signer(keys.derive(b"console flash"))
        self._forms = keys.derive(b"console csrf")
        self._connections = _signer(keys.derive(b"console connection"))

    def begin(self, key: Key) -> str:
        """A new session of a key, as the value of its cookie."""
        return self._cookies.dumps([key.key_id, secrets.token_urlsafe(16)])

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie; None when it is no cookie of ours, was altered, or is too old."""
        try:
            key_id, nonce = self._cookies.loads(cookie, max_age=LONGEST_S)
        except BadData:
            return None
        return Session(key_id, nonce)

    def csrf(self, session: Session) -> str:
        """The token that every form of a session carries; of no use in another one."""
        return hmac.new(self._forms, f"{session.key_id}:{session.nonce}".encode(), sha256).hexdigest()

    def connect(self, csrf: str, application: str) -> str:
        """That a session asks as an application whose key was presented in it, as the value of a cookie.

        Args:
            csrf: the token of the session; the cookie means nothing in another one.
            application: the id of the application's key.
        """
        return self._connections.dumps(application, salt=csrf)

    def read_connection(self, csrf: str, cookie: str) -> str | None:
        """The id of the application's key that a session asks with; None where none was presented in it."""
        try:
            return str(self._connections.loads(cookie, max_age=LONGEST_S, salt=csrf))
        except BadData:
            return None

    def flash(self, text: str) -> str:
        """A text that the next page shows once, as the value of a cookie."""
        return self._flashes.dumps(text)

    def read_flash(self, cookie: str) -> str | None:
        """The text of such a cookie; None when it is none of ours, or is old."""
        try:
            return str(self._flashes.loads(cookie, max_age=FLASH_S))
        except BadData:
            return None


def _signer(secret: bytes) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256})
