"""Kubeconfigs as users upload them: read, and refused when they would run or read something here.

Source: kubernetes.io/docs/reference/config-api/kubeconfig.v1 (the names of the fields).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from controlplane.errors import Conflict, Refused

SIZE_LIMIT_BYTES: Final = 256 << 10
_FIELD: Final = "kubeconfig_content"
# what makes a client run a program, or read a file of the machine that it runs on
_USER_REFUSED: Final = {
    "exec": "a command to run",
    "auth-provider": "a command to run",
    "client-certificate": "a file's path; embed client-certificate-data",
    "client-key": "a file's path; embed client-key-data",
    "tokenFile": "a file's path; embed token",
}
_CLUSTER_REFUSED: Final = {
    "certificate-authority": "a file's path; embed certificate-authority-data",
    "proxy-url": "a proxy",
}


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """A kubeconfig that carries all it needs.

    Attributes:
        server: API address of its current context.
        text: as it is kept, sealed.
    """

    server: str
    text: str = field(repr=False)


def read(content: str) -> Kubeconfig:
    """The kubeconfig in ``content`` (base64). Blocks; may take a tenth of a second.

    Raises:
        Conflict: it is well formed base64, but no kubeconfig can be read in it.
        Refused: it has a command, a file's path or a proxy in it.
    """
    text = _decoded(content)
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as cause:
        raise Conflict(f"Field `{_FIELD}` is no YAML or JSON.") from cause
    if not isinstance(document, dict):
        raise Conflict(f"Field `{_FIELD}` is no kubeconfig.")
    clusters = _named(document, "clusters", "cluster")
    users = _named(document, "users", "user")
    for entries, refused in ((users, _USER_REFUSED), (clusters, _CLUSTER_REFUSED)):
        for name, entry in entries.items():
            for key, what in refused.items():
                if entry.get(key):
                    raise Refused(
                        f"Field `{_FIELD}` has {what} ({key} of {name}), which is not accepted."
                    )
    return Kubeconfig(_server(document, clusters), text)


def _decoded(content: str) -> str:
    if len(content) > SIZE_LIMIT_BYTES * 4 // 3:
        raise Refused(f"Field `{_FIELD}` is larger than {SIZE_LIMIT_BYTES} bytes.")
    try:
        return base64.b64decode("".join(content.split()), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as cause:
        raise Conflict(f"Field `{_FIELD}` is not base64 of a text.") from cause


def _named(document: dict[str, Any], kind: str, inner: str) -> dict[str, dict[str, Any]]:
    """The entries of a kubeconfig's list ``kind``, by name."""
    entries = document.get(kind) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Conflict(f"Field `{_FIELD}` is no kubeconfig: `{kind}` must be a list of objects.")
    found = {}
    for entry in entries:
        content = entry.get(inner) or {}
        if not isinstance(content, dict):
            raise Conflict(f"Field `{_FIELD}` is no kubeconfig: `{inner}` must be an object.")
        found[str(entry.get("name", ""))[:100]] = content
    return found


def _server(document: dict[str, Any], clusters: dict[str, dict[str, Any]]) -> str:
    contexts = _named(document, "contexts", "context")
    current = contexts.get(str(document.get("current-context", "")), {})
    chosen = clusters.get(str(current.get("cluster", ""))) or next(iter(clusters.values()), {})
    server = chosen.get("server")
    if not isinstance(server, str) or not server:
        raise Conflict(f"Field `{_FIELD}` names no cluster with a server.")
    return server
