"""Which cluster a request means: by name, by the URL of its Kubernetes API, or the only one."""

from __future__ import annotations

from urllib.parse import urlsplit

from controlplane import errors
from controlplane.errors import NotFound, Refused
from controlplane.store import clusters as rows
from controlplane.store.clusters import ClusterRow
from controlplane.store.database import Store


class ClusterDirectory:
    """Finds clusters among the stored configs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def resolve(self, name: str = "", kube_api_address: str = "") -> str:
        """The name of the cluster that is meant; a name wins over an address.

        Raises:
            NotFound: CLUSTER_NOT_FOUND, also where nothing was said and there are several.
        """
        known = await self._store.read(rows.everything)
        if name:
            if any(cluster.name == name for cluster in known):
                return name
            raise _not_found(f"There is no cluster {name}.", known)
        if kube_api_address:
            return _by_address(kube_api_address, known)
        if len(known) == 1:
            return known[0].name
        if not known:
            raise _not_found("No cluster is configured yet.", known)
        raise _not_found(
            "There are several clusters; say by `cluster_name` which one is meant.", known
        )


def normalized(address: str) -> tuple[str, str, int, str]:
    """An API server's address as something that compares: scheme, host, port, path.

    Raises:
        Refused: it is no address.
    """
    text = address if "://" in address else f"https://{address}"
    try:
        parts = urlsplit(text)
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError as cause:
        raise Refused("kube_api_address is not the address of an API server.") from cause
    return parts.scheme.lower(), (parts.hostname or "").lower(), port, parts.path.rstrip("/")


def _by_address(address: str, known: list[ClusterRow]) -> str:
    wanted = normalized(address)
    found = [c.name for c in known if c.kube_api_url and normalized(c.kube_api_url) == wanted]
    if len(found) == 1:
        return found[0]
    if not found:
        raise _not_found("No cluster has the API server that kube_api_address names.", known)
    raise _not_found(
        f"Several clusters have this API server ({', '.join(found)}); say `cluster_name` instead.",
        known,
    )


def _not_found(message: str, known: list[ClusterRow]) -> NotFound:
    names = ", ".join(cluster.name for cluster in known)
    details = f"known clusters: {names}" if names else "known clusters: none"
    return NotFound(message, code=errors.CLUSTER_NOT_FOUND, details=details)
