"""What a cluster is told of a hook: its MutatingWebhookConfiguration, and whether one that is there says the same.

Source: the Kubernetes API reference, MutatingWebhookConfiguration v1 of admissionregistration.k8s.io.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.hook.admission import NEVER
from controlplane.kube.workloads import SNAP

PATH: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
TIMEOUT_S: Final = 1
MANAGED: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "snap"
_NAME_LETTERS: Final = 49  # with what is put before and behind: 63
_MIRROR: Final = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the cluster, by which it reaches us instead of by a URL."""

    namespace: str
    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Registration:
    """What a hook's configuration says.

    Attributes:
        url: with its path; used unless there is a ``service``.
        path: of the URL.
        ca_pem: whom the API server trusts.
        left_alone: namespaces, besides ``NEVER``.
    """

    hook: str
    url: str
    path: str
    ca_pem: str
    service: Service | None = None
    left_alone: frozenset[str] = frozenset()


def name_of(hook: str) -> str:
    """The configuration's name in the cluster: a hook's name where that is one."""
    plain = re.sub(r"[^a-z0-9-]+", "-", hook.lower()).strip("-")[:_NAME_LETTERS].strip("-")
    if plain != hook:
        plain = f"{plain or 'hook'}-{hashlib.sha256(hook.encode()).hexdigest()[:8]}"
    return f"snap-{plain}"


def _client(wanted: Registration) -> dict[str, Any]:
    """How the API server reaches the hook."""
    client: dict[str, Any] = {"caBundle": base64.b64encode(wanted.ca_pem.encode()).decode()}
    if wanted.service is None:
        return client | {"url": wanted.url}
    service = wanted.service
    return client | {
        "service": {
            "namespace": service.namespace,
            "name": service.name,
            "port": service.port,
            "path": wanted.path,
        }
    }


def configuration(wanted: Registration) -> dict[str, Any]:
    """The configuration of a hook."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name_of(wanted.hook), "labels": {MANAGED: MANAGER}},
        "webhooks": [
            {
                "name": f"{name_of(wanted.hook)}.hooks.weaversoft.io",
                "admissionReviewVersions": ["v1"],
                "clientConfig": _client(wanted),
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "None",
                "timeoutSeconds": TIMEOUT_S,
                "objectSelector": {"matchLabels": {SNAP: "true"}},
                "namespaceSelector": {"matchExpressions": [_not_in(NEVER | wanted.left_alone)]},
                "matchConditions": [
                    {
                        "name": "no-static-pods",  # their object only mirrors a file of a node
                        "expression": "!has(object.metadata.annotations) || "
                        f"!('{_MIRROR}' in object.metadata.annotations)",
                    }
                ],
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                        "scope": "Namespaced",
                    }
                ],
            }
        ],
    }


def says_the_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether ``found`` has all that ``wanted`` says, and no more webhooks than it."""
    theirs, ours = found.get("webhooks"), wanted["webhooks"]
    if not isinstance(theirs, list) or len(theirs) != len(ours):
        return False
    labels = {"labels": wanted["metadata"]["labels"]}
    return _has(theirs, ours) and _has(found.get("metadata"), labels)


def _not_in(namespaces: Iterable[str]) -> dict[str, Any]:
    return {
        "key": "kubernetes.io/metadata.name",
        "operator": "NotIn",
        "values": sorted(namespaces),
    }


def _has(found: object, wanted: object) -> bool:
    """Whether ``found`` says what ``wanted`` does; what the API server adds besides is no matter."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_has(found.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list) and len(found) == len(wanted) and all(map(_has, found, wanted))
        )
    return found == wanted
