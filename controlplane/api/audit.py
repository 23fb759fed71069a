"""``/audit``: who did what, to what, when, from where, and what came of it."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from controlplane.api.calls import Call
from controlplane.api.fields import Limit
from controlplane.api.routing import Section
from controlplane.identity import Role

SECTION: Final = Section("Audit", "Who did what.")


class AuditList(msgspec.Struct):
    """How many entries, and before which."""

    limit: Limit = 100
    cursor: Annotated[int, Meta(ge=1, le=2**53)] | None = None


class AuditItem(msgspec.Struct, frozen=True):
    """One deed."""

    id: int
    at: str
    actor: str
    action: str
    subject: str
    outcome: str
    address: str
    details: dict[str, str]


class AuditPage(msgspec.Struct, frozen=True):
    """Deeds, newest first; ``next_cursor`` asks for more."""

    entries: list[AuditItem]
    next_cursor: int | None
    success: bool = True


@SECTION.route("GET", "/audit", takes=AuditList, gives=AuditPage, needs=Role.ADMINISTRATOR)
async def list_entries(call: Call, wanted: AuditList) -> AuditPage:
    """The audit log, newest first."""
    found = await call.services.audit.page(wanted.limit, wanted.cursor)
    entries = [
        AuditItem(
            id=entry.number,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            outcome=entry.outcome,
            address=entry.address,
            details=dict(entry.details),
        )
        for entry in found
    ]
    return AuditPage(entries, entries[-1].id if len(entries) == wanted.limit else None)
