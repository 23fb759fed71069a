"""Paths of the Kubernetes API: resources that we read or write.

Source: kubernetes.io/docs/reference/using-api/api-concepts (resource URIs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

Object = dict[str, Any]
"""Something as the API server has it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object: ``api`` is ``v1`` or ``<group>/<version>``, ``plural`` as in paths."""

    api: str
    plural: str

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """The path of all, of a namespace's, of one, or of a subresource of one."""
        root = f"/api/{self.api}" if "/" not in self.api else f"/apis/{self.api}"
        parts = [root]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, sub) if part]
        return "/".join(parts)


PODS: Final = Resource("v1", "pods")
NODES: Final = Resource("v1", "nodes")
NAMESPACES: Final = Resource("v1", "namespaces")
CONFIG_MAPS: Final = Resource("v1", "configmaps")
EVENTS: Final = Resource("events.k8s.io/v1", "events")
RUNTIME_CLASSES: Final = Resource("node.k8s.io/v1", "runtimeclasses")
TOKEN_REVIEWS: Final = Resource("authentication.k8s.io/v1", "tokenreviews")
ACCESS_REVIEWS: Final = Resource("authorization.k8s.io/v1", "selfsubjectaccessreviews")
MUTATING_WEBHOOKS: Final = Resource(
    "admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"
)


def name_of(found: Object) -> str:
    """An object's name."""
    return str((found.get("metadata") or {}).get("name") or "")


def namespace_of(found: Object) -> str:
    """An object's namespace; empty for one that is in none."""
    return str((found.get("metadata") or {}).get("namespace") or "")


def uid_of(found: Object) -> str:
    """An object's UID."""
    return str((found.get("metadata") or {}).get("uid") or "")


def version_of(found: Object) -> str:
    """An object's, or a list's, resource version."""
    return str((found.get("metadata") or {}).get("resourceVersion") or "")


def trimmed(found: Object) -> Object:
    """An object without what nobody here reads: who manages its fields, and what kubectl applied last."""
    metadata = dict(found.get("metadata") or {})
    metadata.pop("managedFields", None)
    annotations = metadata.get("annotations")
    if annotations and _APPLIED in annotations:
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _APPLIED}
    return found | {"metadata": metadata}


_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
