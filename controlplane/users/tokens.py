"""Session tokens: JWT, HS256, with a key that only this control plane has.

A token names its user and the stamp of that user's account; the stamp changes with the password, the
role and the namespaces, so older tokens end at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import jwt

ISSUER: Final = "snap-api"
AUDIENCE: Final = "snap-users"
_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ["exp", "iat", "jti", "iss", "aud", "sub", "stamp"]
_LEEWAY_S: Final = 0


@dataclass(frozen=True, slots=True)
class Claims:
    """What a checked token says.

    Attributes:
        stamp: of the account when the token was made.
        expires_at: Unix seconds.
    """

    username: str
    stamp: str
    token_id: str
    expires_at: int


class Tokens:
    """Signs and checks session tokens.

    Args:
        key: at least 32 bytes, used for nothing else.
        clock: Unix seconds.
        lifetime_s: how long a token is good.
    """

    def __init__(self, key: bytes, clock: Callable[[], float], lifetime_s: int) -> None:
        if len(key) < 32:
            raise ValueError("the key for session tokens must have at least 32 bytes")
        self._key = key
        self._clock = clock
        self.lifetime_s = lifetime_s

    def issue(self, username: str, stamp: str) -> tuple[str, Claims]:
        """A new token for ``username``, and what it says."""
        now = int(self._clock())
        claims = Claims(username, stamp, secrets.token_urlsafe(12), now + self.lifetime_s)
        token = jwt.encode(
            {
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": username,
                "stamp": stamp,
                "jti": claims.token_id,
                "iat": now,
                "exp": claims.expires_at,
            },
            self._key,
            algorithm=_ALGORITHM,
        )
        return token, claims

    def read(self, token: str) -> Claims | None:
        """What ``token`` says, or None when it is not ours, broken, or over."""
        try:
            said = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
            )
            claims = Claims(
                str(said["sub"]), str(said["stamp"]), str(said["jti"]), int(said["exp"])
            )
        except (jwt.InvalidTokenError, TypeError, ValueError):
            return None
        return claims if claims.expires_at > self._clock() else None
