"""Times as the store writes them, and ids that sort by them."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_lock = threading.Lock()
_last = 0


def now(plus_s: float = 0.0) -> str:
    """This moment (or ``plus_s`` later) as RFC 3339 UTC with milliseconds; sorts as text."""
    return stamp(datetime.now(UTC) + timedelta(seconds=plus_s))


def stamp(moment: datetime) -> str:
    """``moment`` in the store's form."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str) -> datetime:
    """The moment that ``text`` (RFC 3339) names.

    Raises:
        ValueError: it names none.
    """
    return datetime.fromisoformat(text)


def new_ulid() -> str:
    """A fresh id of 26 characters; ids of one process sort in the order they were made.

    Source: github.com/ulid/spec: 48 bits of milliseconds, 80 random bits, Crockford's base 32;
    within one millisecond the random part is counted up.
    """
    global _last  # noqa: PLW0603 - the order is a property of the process
    with _lock:
        fresh = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
        _last = fresh if fresh >> 80 > _last >> 80 else _last + 1
        value = _last
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    """Whether ``text`` has the form of an id made here."""
    return len(text) == 26 and all(letter in _ALPHABET for letter in text)
