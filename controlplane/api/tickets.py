"""Tickets: open one WebSocket within 30 seconds, for pages that can send neither header nor cookie."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from controlplane.users.service import Session

LIFETIME_S: Final = 30
_KEPT: Final = 10_000


class Tickets:
    """Tickets that were given out and not used yet.

    Args:
        clock: seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, tuple[float, Session]] = OrderedDict()

    def issue(self, session: Session) -> str:
        """A new ticket that stands for ``session``."""
        ticket = secrets.token_urlsafe(24)
        self._sessions[ticket] = (self._clock() + LIFETIME_S, session)
        while len(self._sessions) > _KEPT:
            self._sessions.popitem(last=False)
        return ticket

    def redeem(self, ticket: str) -> Session | None:
        """The session that ``ticket`` stands for; it is used up. None when it is unknown or over."""
        until, session = self._sessions.pop(ticket, (0.0, None))
        return session if until > self._clock() else None
