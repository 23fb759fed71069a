"""Cluster configs, and where each cluster's images go. Credentials are sealed secrets ``cluster/<name>``."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from controlplane.store import clock

_COLUMNS = "name, kube_api_url, auth_type, verify_ssl, created_at, updated_at"
DEFAULT_REPO = "snap_images"


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster as it is stored.

    Attributes:
        auth_type: kubeconfig, token, service_account or in_cluster.
        registry: name of the registry config that its images go to; empty when none was chosen.
        repo: repository there.
    """

    name: str
    kube_api_url: str = ""
    auth_type: str = "token"
    verify_ssl: bool = True
    registry: str = ""
    repo: str = DEFAULT_REPO
    created_at: str = ""
    updated_at: str = ""


_SELECT = (
    "SELECT c.name, c.kube_api_url, c.auth_type, c.verify_ssl, c.created_at, c.updated_at, "
    "coalesce(k.registry, ''), coalesce(k.repo, '') "
    "FROM clusters c LEFT JOIN cluster_cache k ON k.cluster = c.name"
)


def secret_name(name: str) -> str:
    """Under which name the credential of cluster ``name`` is sealed."""
    return f"cluster/{name}"


def everything(db: Database) -> list[ClusterRow]:
    """All clusters, by name."""
    return [_row(row) for row in db.execute(f"{_SELECT} ORDER BY c.name")]


def get(db: Database, name: str) -> ClusterRow | None:
    """The cluster called ``name``."""
    found = db.execute(f"{_SELECT} WHERE c.name = ?", [name]).fetchone()
    return None if found is None else _row(found)


def put(db: Database, cluster: ClusterRow) -> ClusterRow:
    """Store ``cluster`` and where its images go, in place of the one of that name."""
    now = clock.now()
    created = cluster.created_at or now
    db.execute(
        f"INSERT INTO clusters ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) "  # noqa: S608 - constant columns
        "ON CONFLICT (name) DO UPDATE SET kube_api_url = excluded.kube_api_url, "
        "auth_type = excluded.auth_type, verify_ssl = excluded.verify_ssl, "
        "updated_at = excluded.updated_at",
        [
            cluster.name,
            cluster.kube_api_url,
            cluster.auth_type,
            int(cluster.verify_ssl),
            created,
            now,
        ],
    )
    if cluster.registry:
        put_destination(db, cluster.name, cluster.registry, cluster.repo)
    else:
        delete_destination(db, cluster.name)
    stored = get(db, cluster.name)
    return stored or cluster


def delete(db: Database, name: str) -> bool:
    """Forget the cluster and where its images go; whether there was one."""
    return db.execute("DELETE FROM clusters WHERE name = ?", [name]).rowcount > 0


def put_destination(db: Database, cluster: str, registry: str, repo: str) -> None:
    """Let the images of ``cluster`` go to ``repo`` of the registry config ``registry``."""
    db.execute(
        "INSERT INTO cluster_cache (cluster, registry, repo) VALUES (?, ?, ?) "
        "ON CONFLICT (cluster) DO UPDATE SET registry = excluded.registry, repo = excluded.repo",
        [cluster, registry, repo or DEFAULT_REPO],
    )


def delete_destination(db: Database, cluster: str) -> bool:
    """Forget where the images of ``cluster`` go; whether that was set."""
    return db.execute("DELETE FROM cluster_cache WHERE cluster = ?", [cluster]).rowcount > 0


def using_registry(db: Database, registry: str) -> list[str]:
    """Names of the clusters whose images go to the registry config ``registry``."""
    query = "SELECT cluster FROM cluster_cache WHERE registry = ? ORDER BY cluster"
    return [row[0] for row in db.execute(query, [registry])]


def _row(values: tuple[object, ...]) -> ClusterRow:
    name, url, auth_type, verify, created, updated, registry, repo = values
    return ClusterRow(
        name=str(name),
        kube_api_url=str(url),
        auth_type=str(auth_type),
        verify_ssl=bool(verify),
        registry=str(registry),
        repo=str(repo) or DEFAULT_REPO,
        created_at=str(created),
        updated_at=str(updated),
    )
