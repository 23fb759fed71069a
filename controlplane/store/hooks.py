"""Hooks as they were set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlite_utils import Database

from controlplane.store import clock

_COLUMNS: Final = (
    "name, cluster, webhook_url, namespace, cert_expiry_days, wanted, owner, created_at, updated_at, "
    "driver"
)


@dataclass(frozen=True, slots=True)
class HookRow:
    """One hook.

    Attributes:
        webhook_url: empty: the control plane's own address.
        wanted: it should run; kept over restarts.
        driver: ``runtime`` (RuntimeClass and annotation), or ``image``: the pod's image is the checkpoint's.
    """

    name: str
    cluster: str
    webhook_url: str = ""
    namespace: str = "snap"
    cert_expiry_days: int = 365
    wanted: bool = False
    owner: str = ""
    created_at: str = ""
    updated_at: str = ""
    driver: str = "runtime"


def everything(db: Database) -> list[HookRow]:
    """All hooks, by name."""
    return [_row(row) for row in db.execute(f"SELECT {_COLUMNS} FROM hooks ORDER BY name")]  # noqa: S608


def get(db: Database, name: str) -> HookRow | None:
    """The hook called ``name``."""
    query = f"SELECT {_COLUMNS} FROM hooks WHERE name = ?"  # noqa: S608 - constant columns
    found = db.execute(query, [name]).fetchone()
    return None if found is None else _row(found)


def put(db: Database, row: HookRow) -> HookRow:
    """Store a hook, in place of the one of that name."""
    now = clock.now()
    values = (
        *(row.name, row.cluster, row.webhook_url, row.namespace, row.cert_expiry_days),
        *(int(row.wanted), row.owner, row.created_at or now, now, row.driver),
    )
    db.execute(
        f"INSERT INTO hooks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608 - constants
        "ON CONFLICT (name) DO UPDATE SET cluster = excluded.cluster, "
        "webhook_url = excluded.webhook_url, namespace = excluded.namespace, "
        "cert_expiry_days = excluded.cert_expiry_days, wanted = excluded.wanted, "
        "updated_at = excluded.updated_at",
        values,
    )
    return _row(values)


def delete(db: Database, name: str) -> bool:
    """Forget the hook ``name``; whether there was one."""
    return db.execute("DELETE FROM hooks WHERE name = ?", [name]).rowcount > 0


def _row(values: tuple[object, ...]) -> HookRow:
    name, cluster, url, namespace, days, wanted, owner, created, updated, driver = values
    return HookRow(
        name=str(name),
        cluster=str(cluster),
        webhook_url=str(url),
        namespace=str(namespace),
        cert_expiry_days=int(str(days)),
        wanted=bool(wanted),
        owner=str(owner),
        created_at=str(created),
        updated_at=str(updated),
        driver=str(driver),
    )
