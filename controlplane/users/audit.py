"""The audit log: who did what, to what, when, from where, and what came of it."""

from __future__ import annotations

from controlplane.identity import Actor
from controlplane.store import audit
from controlplane.store.audit import AuditEntry
from controlplane.store.database import Store


class AuditLog:
    """Writes and reads the audit log."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, actor: Actor, action: str, subject: str, **details: str) -> None:
        """Keep a deed; ``outcome`` and ``address`` among the details have columns of their own."""
        entry = AuditEntry(
            actor.username,
            action,
            subject,
            outcome=details.pop("outcome", "ok"),
            address=details.pop("address", ""),
            details=details,
        )
        await self._store.write(lambda db: audit.write(db, entry))

    async def page(self, limit: int, before: int | None = None) -> list[AuditEntry]:
        """The newest ``limit`` entries with numbers below ``before``."""
        return await self._store.read(lambda db: audit.page(db, limit, before))
