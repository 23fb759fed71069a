"""A new pod made of a checkpointed one's template, so that it starts from its checkpoints.

Source: kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1 (affinity, runtimeClassName).
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from controlplane.kube.labels import PREFIX
from controlplane.kube.resources import Object

RUNTIME_CLASS: Final = "snap"
RUNTIME: Final = "runtime"
IMAGE: Final = "image"
RESTORED: Final = {PREFIX + "mutated": "true"}  # such a pod is not checkpointed by itself again
_NAME_CHARS: Final = 253
_HOST_CHARS: Final = 63
_PREFERRED: Final = {"cpu-features": 60, "kernel": 20, "criu": 10, "oci-runtime": 10}


@dataclass(frozen=True, slots=True)
class NewPod:
    """What is to be made.

    Attributes:
        checkpoint: the one that was asked for: (id, digest).
        images: by container, NAME@DIGEST of the checkpoint that it starts from.
        nodes: it must run on one of them; none for any.
        fits: labels of nodes that suit the checkpoint best, without the prefix.
        mode: eager, lazy or auto; empty for the checkpoint's own.
    """

    namespace: str
    name: str
    driver: str
    checkpoint: tuple[str, str]
    images: Mapping[str, str]
    nodes: tuple[str, ...] = ()
    service_account: str = "default"
    mode: str = ""
    fits: Mapping[str, str] = field(default_factory=dict)


def fresh_name(pod_name: str) -> str:
    """A name for a pod restored from ``pod_name``'s checkpoint that nobody has yet."""
    ending = f"-restored-{secrets.token_hex(3)[:5]}"
    return pod_name[: _HOST_CHARS - len(ending)].rstrip("-.") + ending


def pod(template: Object, wanted: NewPod) -> Object:
    """The pod as it is created."""
    metadata = template.get("metadata") or {}
    spec: dict[str, Any] = copy.deepcopy(template.get("spec") or {})
    spec["serviceAccountName"] = wanted.service_account
    spec["affinity"] = _affinity(spec.get("affinity") or {}, wanted)
    annotations = dict(metadata.get("annotations") or {}) | {
        PREFIX + "checkpoint-id": wanted.checkpoint[0],
        PREFIX + "checkpoint-digest": wanted.checkpoint[1],
    }
    if wanted.driver == RUNTIME:
        spec["runtimeClassName"] = RUNTIME_CLASS
        named = msgspec.json.encode(dict(wanted.images), order="sorted").decode()
        annotations[PREFIX + "checkpoint"] = named
        if wanted.mode:
            annotations[PREFIX + "restore-mode"] = wanted.mode
    else:
        for container in spec.get("containers") or ():
            container["image"] = wanted.images.get(container["name"], container.get("image"))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": wanted.name[:_NAME_CHARS],
            "namespace": wanted.namespace,
            "labels": dict(metadata.get("labels") or {}) | RESTORED,
            "annotations": annotations,
        },
        "spec": spec,
    }


def _affinity(old: dict[str, Any], wanted: NewPod) -> dict[str, Any]:
    """The template's own, the nodes that it must be on, and a preference for nodes that suit."""
    affinity = copy.deepcopy(old)
    of_node: dict[str, Any] = affinity.setdefault("nodeAffinity", {})
    if wanted.nodes:
        here = [{"key": "metadata.name", "operator": "In", "values": [n]} for n in wanted.nodes]
        required = of_node.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
        terms = required.get("nodeSelectorTerms") or [{}]
        required["nodeSelectorTerms"] = [
            term | {"matchFields": [*(term.get("matchFields") or ()), one]}
            for term in terms
            for one in here
        ]
    preferred = of_node.setdefault("preferredDuringSchedulingIgnoredDuringExecution", [])
    for name, weight in _PREFERRED.items():
        if value := wanted.fits.get(name):
            wish = {"key": PREFIX + name, "operator": "In", "values": [value]}
            preferred.append({"weight": weight, "preference": {"matchExpressions": [wish]}})
    return affinity
