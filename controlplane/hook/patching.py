"""JSON patches of pods.

Source: RFC 6902 (JSON Patch), RFC 6901 (JSON Pointer: ``~`` is ``~0``, ``/`` is ``~1``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Operation = dict[str, Any]


def put(
    holder: Mapping[str, Any], path: tuple[str, ...], values: Mapping[str, str]
) -> list[Operation]:
    """Operations that put ``values`` into the object at ``path``, which is made where there is none.

    Args:
        holder: what is there at the parent of ``path``.
    """
    present = holder.get(path[-1])
    if not isinstance(present, dict):
        return [_add(path, dict(values))]
    return [_add((*path, k), v) for k, v in values.items() if present.get(k) != v]


def drop(holder: Mapping[str, Any], path: tuple[str, ...], name: str) -> list[Operation]:
    """Operations that take ``name`` out of the object at ``path``; ``holder`` as in ``put``."""
    present = holder.get(path[-1])
    is_there = isinstance(present, dict) and name in present
    return [{"op": "remove", "path": _pointer((*path, name))}] if is_there else []


def runtime_class(spec: Mapping[str, Any], name: str) -> list[Operation]:
    """Operations that give the pod a RuntimeClass."""
    return (
        [] if spec.get("runtimeClassName") == name else [_add(("spec", "runtimeClassName"), name)]
    )


def images(spec: Mapping[str, Any], references: Mapping[str, str]) -> list[Operation]:
    """Operations that give containers other images; container → image."""
    return [
        _add(("spec", "containers", str(number), "image"), references[str(container.get("name"))])
        for number, container in enumerate(spec["containers"])
        if isinstance(container, dict) and str(container.get("name")) in references
    ]


def prefer_nodes(spec: Mapping[str, Any], names: Sequence[str]) -> list[Operation]:
    """Operations that make the scheduler prefer these nodes, besides what the pod prefers already."""
    term = {
        "weight": 100,
        "preference": {
            "matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": list(names)}
            ]
        },
    }
    field = "preferredDuringSchedulingIgnoredDuringExecution"
    path: tuple[str, ...] = ("spec", "affinity")
    affinity = spec.get("affinity")
    if not isinstance(affinity, dict):
        return [_add(path, {"nodeAffinity": {field: [term]}})]
    of_nodes = affinity.get("nodeAffinity")
    if not isinstance(of_nodes, dict):
        return [_add((*path, "nodeAffinity"), {field: [term]})]
    path = (*path, "nodeAffinity", field)
    preferred = of_nodes.get(field)
    if not isinstance(preferred, list):
        return [_add(path, [term])]
    return [] if term in preferred else [_add((*path, "-"), term)]


def _add(path: tuple[str, ...], value: Any) -> Operation:
    return {"op": "add", "path": _pointer(path), "value": value}


def _pointer(path: tuple[str, ...]) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
