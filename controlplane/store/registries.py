"""Registry configs. Their passwords are sealed secrets named ``registry/<name>``."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from controlplane.store import clock
from controlplane.store.records import RegistryAccess

_COLUMNS = (
    "name, url, host, path, repo, username, verify_ssl, plain_http, ca_pem, created_at, updated_at"
)


@dataclass(frozen=True, slots=True)
class RegistryRow:
    """One registry as it is stored.

    Attributes:
        url: as it was given.
        host: host[:port].
        path: what the url had after the host, without slashes at its ends; every repository is below it.
        repo: repository below ``path`` that images go to when nothing else is said.
        plain_http: spoken to without TLS, because the url begins with http://.
    """

    name: str
    url: str
    host: str
    path: str = ""
    repo: str = ""
    username: str = ""
    verify_ssl: bool = True
    plain_http: bool = False
    ca_pem: str = ""
    created_at: str = ""
    updated_at: str = ""


def secret_name(name: str) -> str:
    """Under which name the password of registry ``name`` is sealed."""
    return f"registry/{name}"


def access(row: RegistryRow, password: bytes | None, prefix: str) -> RegistryAccess:
    """How to reach the registry, with its unsealed password, below ``prefix``."""
    return RegistryAccess(
        host=row.host,
        username=row.username,
        password=(password or b"").decode(),
        verify_ssl=row.verify_ssl,
        ca_pem=row.ca_pem,
        plain_http=row.plain_http,
        repository_prefix=prefix,
    )


def everything(db: Database) -> list[RegistryRow]:
    """All registries, by name."""
    return [_row(r) for r in db.execute(f"SELECT {_COLUMNS} FROM registries ORDER BY name")]  # noqa: S608


def get(db: Database, name: str) -> RegistryRow | None:
    """The registry called ``name``."""
    query = f"SELECT {_COLUMNS} FROM registries WHERE name = ?"  # noqa: S608 - constant columns
    found = db.execute(query, [name]).fetchone()
    return None if found is None else _row(found)


def put(db: Database, registry: RegistryRow) -> RegistryRow:
    """Store ``registry``, in place of the one of that name; returns it with its times."""
    now = clock.now()
    kept = (
        registry.name,
        registry.url,
        registry.host,
        registry.path,
        registry.repo,
        registry.username,
        int(registry.verify_ssl),
        int(registry.plain_http),
        registry.ca_pem,
        registry.created_at or now,
        now,
    )
    db.execute(
        f"INSERT INTO registries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (name) DO UPDATE SET url = excluded.url, host = excluded.host, "
        "path = excluded.path, repo = excluded.repo, username = excluded.username, "
        "verify_ssl = excluded.verify_ssl, plain_http = excluded.plain_http, "
        "ca_pem = excluded.ca_pem, updated_at = excluded.updated_at",
        kept,
    )
    return _row(kept)


def delete(db: Database, name: str) -> bool:
    """Forget the registry ``name``; whether there was one. Its secret is deleted by the caller."""
    return db.execute("DELETE FROM registries WHERE name = ?", [name]).rowcount > 0


def _row(values: tuple[object, ...]) -> RegistryRow:
    name, url, host, path, repo, username, verify, plain, ca_pem, created, updated = values
    return RegistryRow(
        name=str(name),
        url=str(url),
        host=str(host),
        path=str(path),
        repo=str(repo),
        username=str(username),
        verify_ssl=bool(verify),
        plain_http=bool(plain),
        ca_pem=str(ca_pem),
        created_at=str(created),
        updated_at=str(updated),
    )
