"""What a handler is given: one request, who sent it, and the services."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
from aiohttp import web

from controlplane.api.decoding import invalid
from controlplane.api.services import Services
from controlplane.api.tickets import Tickets
from controlplane.errors import Unauthenticated
from controlplane.identity import Actor
from controlplane.users.service import Session

_KEY_LENGTH: Final = 255


UNKNOWN: Final = "-"  # who nobody knows, on record


@dataclass(slots=True)
class Call:
    """One request on its way through the edge.

    Attributes:
        address: of the client; behind a trusted proxy the one that the proxy tells.
        request_id: in the answer and in the log.
        session: None on routes that are open.
        body: as it came, for the idempotency key.
        headers: what the answer carries besides its own.
        outcome: code of the error, or "ok"; for log, metrics and audit.
        subject: what was acted on, for the audit log.
        agent_of: cluster of the join token, on routes for agents.
    """

    request: web.Request
    services: Services
    tickets: Tickets
    address: str
    request_id: str
    session: Session | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    outcome: str = "ok"
    subject: str = ""
    agent_of: str = ""

    @property
    def actor(self) -> Actor:
        """Who asks.

        Raises:
            Unauthenticated: nobody known; open routes must not ask.
        """
        if self.session is None:
            raise Unauthenticated("This needs a token: log in at POST /config/user/login.")
        return replace(self.session.actor, address=self.address)

    @property
    def idempotency_key(self) -> str:
        """The client's key for "the same request again"; empty if none was sent.

        Raises:
            Refused: it is none.
        """
        key = self.request.headers.get("Idempotency-Key", "")
        if len(key) > _KEY_LENGTH or not key.isascii() or not key.isprintable():
            raise invalid(
                f"The header `Idempotency-Key` must be at most {_KEY_LENGTH} printable ASCII characters."
            )
        return key

    @property
    def fingerprint(self) -> bytes:
        """What makes a request the same as another one, besides its key."""
        return self.request.raw_path.encode() + b"\n" + self.body


@dataclass(slots=True)
class Reply:
    """An answer that is not just 200 and a struct."""

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Done(msgspec.Struct, frozen=True):
    """Something was done."""

    message: str
    success: bool = True


class Accepted(msgspec.Struct, frozen=True):
    """Work that goes on: its job, to be asked for at GET /jobs/{id}."""

    job_id: str
    status: str
    message: str = "The job was accepted and goes on; ask GET /jobs/{id} for its state."
    success: bool = True
