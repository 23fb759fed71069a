"""Passwords: argon2id in threads, the same time for users who don't exist, a few at once."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

import argon2

# OWASP's second choice for argon2id: 19 MiB, two passes, one lane; several logins at once stay small
# Source: OWASP Password Storage Cheat Sheet
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_AT_ONCE: Final = 2
MINIMUM_LENGTH: Final = 8
MAXIMUM_LENGTH: Final = 1024


class Passwords:
    """Makes and checks password hashes without holding up the event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to keep of ``password``, with its own salt and parameters in it."""
        async with self._slots:
            return await asyncio.to_thread(_HASHER.hash, password)

    async def matches(self, kept: str | None, password: str) -> bool:
        """Whether ``password`` is the one of which ``kept`` was made.

        None stands for a user who does not exist: as much work is done, and the answer is no.
        """
        if self._nobody is None:
            self._nobody = await self.hash(secrets.token_urlsafe(16))
        async with self._slots:
            right = await asyncio.to_thread(_verify, kept or self._nobody, password)
        return right and kept is not None


def _verify(kept: str, password: str) -> bool:
    try:
        return _HASHER.verify(kept, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def generate() -> str:
    """A password that nobody has to remember."""
    return secrets.token_urlsafe(18)
