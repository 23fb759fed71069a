"""Where a cluster reaches a hook: its URL or service, and the path that nobody guesses."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from yarl import URL

from controlplane.hook.webhook import Service
from controlplane.settings import Settings
from controlplane.store.hooks import HookRow

_NO_PATH: Final = ("", "/")
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Reaching:
    """How clusters reach the admission port.

    Attributes:
        key: of the paths.
        host, port: of this server, for hooks without a URL of their own.
        service: instead, for the cluster that this server runs in.
        own_cluster: the name of that; empty: there is only one.
        own_namespace: that this server runs in; empty: in no cluster.
        life: of certificates, instead of each hook's days.
    """

    key: bytes = field(repr=False)
    host: str
    port: int
    names: frozenset[str]
    service: Service | None = None
    own_cluster: str = ""
    own_namespace: str = ""
    life: timedelta | None = None

    def url(self, hook: HookRow) -> str:
        """The URL of a hook: its own, with a path of ours if it has none; else one on this server."""
        if hook.webhook_url:
            has_path = _parsed(hook.webhook_url).raw_path not in _NO_PATH
            return hook.webhook_url if has_path else hook.webhook_url.rstrip("/") + self.path(hook)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}{self.path(hook)}"

    def path(self, hook: HookRow) -> str:
        """The path at which a hook answers: that of its URL, else one that nobody guesses."""
        path = _parsed(hook.webhook_url).raw_path if hook.webhook_url else ""
        if path not in _NO_PATH:
            return path
        secret = hmac.digest(self.key, hook.name.encode(), hashlib.sha256).hex()[:32]
        return f"/hook/{hook.name}/{secret}"

    def service_of(self, hook: HookRow) -> Service | None:
        """The service by which a hook's cluster reaches it; None: by its URL."""
        is_here = self.own_cluster in ("", hook.cluster)
        return self.service if is_here and not hook.webhook_url else None

    def names_of(self, hook: HookRow) -> frozenset[str]:
        """The names that the certificate must be good for."""
        host = _parsed(hook.webhook_url).raw_host if hook.webhook_url else self.host
        service = self.service
        known = {f"{service.name}.{service.namespace}.svc"} if service else set()
        return self.names | known | ({host} if host else set())

    def life_of(self, hook: HookRow) -> timedelta:
        """How long a certificate for a hook is good."""
        return self.life or timedelta(days=hook.cert_expiry_days)

    def left_alone(self) -> frozenset[str]:
        """The namespaces whose pods are never changed, besides those of the system."""
        return frozenset({self.own_namespace} - {""})


def read(settings: Settings, key: bytes, environment: Mapping[str, str]) -> Reaching:
    """What the settings say of it."""
    sans = settings.tls_sans
    own = settings.namespace
    if not own and "KUBERNETES_SERVICE_HOST" in environment and _NAMESPACE_FILE.exists():
        own = _NAMESPACE_FILE.read_text().strip()
    return Reaching(
        key=key,
        host=settings.hook_host or (sans[0] if sans else "localhost"),
        port=settings.hook_addr.port,
        names=frozenset({*sans, "localhost", "127.0.0.1", "::1"}),
        service=_service(settings.hook_service, settings.hook_addr.port),
        own_cluster=settings.cluster_name,
        own_namespace=own,
        life=timedelta(seconds=settings.hook_cert_life_s) if settings.hook_cert_life_s else None,
    )


def _parsed(url: str) -> URL:
    """``url`` in its parts; an empty one where it is none (what was stored before it was checked)."""
    try:
        return URL(url)
    except ValueError:
        return URL()


def _service(text: str, port: int) -> Service | None:
    """The service that ``<namespace>/<name>[:port]`` means."""
    if not text:
        return None
    namespace, _, rest = text.partition("/")
    name, _, number = rest.partition(":")
    return Service(namespace, name, int(number) if number else port)
