"""A cluster's nodes as far as a pod's start depends on them; which of them a pod could run on.

Source: the Kubernetes API reference, Node v1 and PodSpec (nodeSelector, affinity, tolerations): what the scheduler's
filters NodeAffinity, NodeName, NodeUnschedulable and TaintToleration go by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from controlplane.kube.workloads import RUNTIME_LABEL

DECIDING: Final = ("nodeName", "nodeSelector", "affinity", "tolerations")  # what of a spec decides
_FORBIDDING: Final = frozenset({"NoSchedule", "NoExecute"})
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node as the API server has it.

    Attributes:
        takes_pods: it is ready, and not cordoned.
        taints: (key, value, effect) of those that keep pods off.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    takes_pods: bool = True
    taints: tuple[tuple[str, str, str], ...] = ()

    @property
    def is_prepared(self) -> bool:
        """Whether it can restore."""
        return self.labels.get(RUNTIME_LABEL) == "true"


def read_node(node: Mapping[str, Any]) -> NodeSeen:
    """What a node's JSON says."""
    metadata, spec, status = (_object(node.get(part)) for part in ("metadata", "spec", "status"))
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in _objects(status.get("conditions"))
    )
    taints = tuple(
        (str(t.get("key", "")), str(t.get("value", "")), str(t.get("effect", "")))
        for t in _objects(spec.get("taints"))
        if t.get("effect") in _FORBIDDING
    )
    labels = {k: v for k, v in _object(metadata.get("labels")).items() if isinstance(v, str)}
    takes = ready and spec.get("unschedulable") is not True
    return NodeSeen(str(metadata.get("name", "")), labels, takes, taints)


def could_use(spec: Mapping[str, Any], node: NodeSeen) -> bool:
    """Whether a pod with ``spec`` could be scheduled to ``node``, resources apart."""
    name = spec.get("nodeName")
    if name:
        return bool(name == node.name)
    selector = _object(spec.get("nodeSelector"))
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return False
    return _affinity_allows(spec, node) and _tolerated(spec, node.taints)


def _affinity_allows(spec: Mapping[str, Any], node: NodeSeen) -> bool:
    affinity = _object(_object(spec.get("affinity")).get("nodeAffinity"))
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not isinstance(required, dict):
        return True
    return any(_matches(term, node) for term in _objects(required.get("nodeSelectorTerms")))


def _matches(term: Mapping[str, Any], node: NodeSeen) -> bool:
    labels = _objects(term.get("matchExpressions"))
    fields = _objects(term.get("matchFields"))
    if not labels and not fields:
        return False  # an empty term selects nothing
    names = {"metadata.name": node.name}
    return all(_holds(r, node.labels) for r in labels) and all(_holds(r, names) for r in fields)


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    values = requirement.get("values")
    found = labels.get(str(requirement.get("key", "")))
    operator = _OPERATORS.get(str(requirement.get("operator", "")))
    return operator is not None and operator(found, values if isinstance(values, list) else [])


def _compared(found: str | None, values: list[Any], sign: int) -> bool:
    limit = values[0] if len(values) == 1 else None
    if found is None or not isinstance(limit, str):
        return False
    if not _NUMBER.fullmatch(found) or not _NUMBER.fullmatch(limit):
        return False
    return (int(found) - int(limit)) * sign > 0


_OPERATORS: Final[dict[str, Callable[[str | None, list[Any]], bool]]] = {
    "In": lambda found, values: found in values,
    "NotIn": lambda found, values: found not in values,
    "Exists": lambda found, _: found is not None,
    "DoesNotExist": lambda found, _: found is None,
    "Gt": lambda found, values: _compared(found, values, 1),
    "Lt": lambda found, values: _compared(found, values, -1),
}


def _tolerated(spec: Mapping[str, Any], taints: Iterable[tuple[str, str, str]]) -> bool:
    tolerations = _objects(spec.get("tolerations"))
    return all(any(_tolerates(t, taint) for t in tolerations) for taint in taints)


def _tolerates(toleration: Mapping[str, Any], taint: tuple[str, str, str]) -> bool:
    key, value, effect = taint
    if toleration.get("effect") not in (None, "", effect):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", key)
    return toleration.get("key") == key and (toleration.get("value") or "") == value


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
