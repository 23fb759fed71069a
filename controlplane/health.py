"""What must work for the control plane to be healthy: its store, and both its listeners."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Final

from controlplane.api.services import Check
from controlplane.errors import SnapError
from controlplane.settings import Address, Settings
from controlplane.store.database import Store

_CHECK_S: Final = 2.0


async def checks(store: Store, settings: Settings) -> Sequence[Check]:
    """What must work: the store for readers and for the writer, and both listeners."""
    listeners = {"agents": settings.grpc_addr, "rest": settings.http_addr}
    found = await asyncio.gather(*map(_accepts, listeners.values()))
    return [
        await _check_store(store),
        *(
            Check(name, ok=ok, message="" if ok else f"Nothing answers on {listeners[name]}.")
            for name, ok in zip(listeners, found, strict=True)
        ),
    ]


async def _check_store(store: Store) -> Check:
    try:
        async with asyncio.timeout(_CHECK_S):
            await store.read(lambda db: db.execute("SELECT 1").fetchone())
            await store.write(lambda db: db.execute("SELECT 1").fetchone())
    except TimeoutError:
        return Check("store", ok=False, message="The database does not answer.")
    except (SnapError, sqlite3.Error):
        return Check("store", ok=False, message="The database can't be read or written.")
    return Check("store", ok=True)


async def _accepts(address: Address) -> bool:
    """Whether somebody can connect to the listener on ``address``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - any of ours
    try:
        async with asyncio.timeout(_CHECK_S):
            _, writer = await asyncio.open_connection(host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
