"""Which registry a push goes to, and where in it: names of configs, the cluster's own, the only one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database

from controlplane import errors
from controlplane.checkpoints.commands import PushTarget
from controlplane.errors import NotFound
from controlplane.store import clusters, registries
from controlplane.store.records import RegistryAccess
from controlplane.store.registries import RegistryRow

_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Destination:
    """A registry config and the path in it below which the image goes."""

    registry: RegistryRow
    prefix: str


def resolve(db: Database, target: PushTarget, cluster: str) -> Destination:
    """The registry that is meant: by its name or host; else the cluster's; else the only one.

    Raises:
        NotFound: REGISTRY_NOT_FOUND.
    """
    home = clusters.get(db, cluster)
    row = _named(db, target.registry) if target.registry else None
    if row is None and target.registry not in ("", _DEFAULT):
        raise _not_found(db, f"There is no registry config {target.registry}.")
    if row is None and home is not None and home.registry:
        row = registries.get(db, home.registry)
    if row is None:
        known = registries.everything(db)
        if len(known) != 1:
            raise _not_found(db, f"Cluster {cluster} has no registry; say which one is meant.")
        row = known[0]
    is_home = home is not None and home.registry == row.name
    repo = home.repo if home is not None and is_home else row.repo or clusters.DEFAULT_REPO
    return Destination(row, "/".join(part for part in (row.path, repo) if part))


def access_given(target: PushTarget, registry: RegistryRow) -> RegistryAccess | None:
    """Access with the user name and password that came with the request, if any did.

    The address and how its certificate is checked are always the config's: a password goes nowhere
    else.
    """
    if not target.username:
        return None
    return RegistryAccess(
        host=registry.host,
        username=target.username,
        password=target.password,
        verify_ssl=registry.verify_ssl,
        ca_pem=registry.ca_pem,
        plain_http=registry.plain_http,
    )


def _named(db: Database, name: str) -> RegistryRow | None:
    found = registries.get(db, name)
    if found is not None:
        return found
    of_host = [row for row in registries.everything(db) if row.host == name]
    return of_host[0] if len(of_host) == 1 else None


def _not_found(db: Database, message: str) -> NotFound:
    names = ", ".join(row.name for row in registries.everything(db)) or "none"
    return NotFound(message, code=errors.REGISTRY_NOT_FOUND, details=f"registry configs: {names}")
