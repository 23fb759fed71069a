"""What a Node says about checkpoints and restores: a condition, and labels that schedulers can go by.

Source: kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1 (conditions);
…/overview/working-with-objects/labels (what a label's value may be).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from controlplane.kube import labels as kube_labels
from controlplane.kube.labels import PREFIX
from controlplane.kube.resources import Object

CONDITION: Final = "SnapReady"
READY: Final = PREFIX + "ready"
RUNTIME: Final = PREFIX + "runtime"
# of a restore: what must be equal, or at least as new, there
FINGERPRINT: Final = tuple(
    PREFIX + name for name in ("arch", "cpu-features", "kernel", "criu", "oci-runtime")
)
AWAY: Final = "AgentAway"
_MESSAGE_CHARS: Final = 1024
_NOT_IN_REASONS: Final = re.compile(r"[^A-Za-z0-9]+")


class Facts(Protocol):
    """What a node has."""

    @property
    def architecture(self) -> str: ...

    @property
    def kernel(self) -> str: ...

    @property
    def criu_version(self) -> str: ...

    @property
    def oci_runtime(self) -> str: ...

    @property
    def oci_runtime_version(self) -> str: ...

    @property
    def cpu_features(self) -> tuple[str, ...]: ...

    @property
    def restore_drivers(self) -> tuple[str, ...]: ...


class Reason(Protocol):
    """Why a node is not ready, and what to do."""

    @property
    def code(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def remedy(self) -> str: ...


class Status(Protocol):
    """What a node's agent last reported."""

    @property
    def ready(self) -> bool: ...

    @property
    def reasons(self) -> Sequence[Reason]: ...


class NodeSeen(Protocol):
    """A node by its agent."""

    @property
    def facts(self) -> Facts: ...

    @property
    def status(self) -> Status: ...


def labels(seen: NodeSeen, *, is_here: bool) -> dict[str, str | None]:
    """The labels that a node must have; None for those it must not.

    ``runtime`` says what lies on the node, and stays while its agent is away: pods start cold there then.
    """
    facts = seen.facts
    is_prepared = "runtime" in facts.restore_drivers
    wanted: dict[str, str | None] = dict.fromkeys((READY, *FINGERPRINT))
    wanted[RUNTIME] = "true" if is_prepared else None
    if not is_here:
        return wanted
    wanted[READY] = "true" if seen.status.ready else "false"
    values = (
        facts.architecture,
        kube_labels.of_cpu(facts.cpu_features),
        kube_labels.value(facts.kernel),
        kube_labels.value(facts.criu_version),
        kube_labels.of_program(facts.oci_runtime, facts.oci_runtime_version),
    )
    return wanted | {name: value or None for name, value in zip(FINGERPRINT, values, strict=True)}


def condition(seen: NodeSeen, *, is_here: bool, now: str) -> dict[str, str]:
    """The condition that a node must have, as of ``now``."""
    reasons = seen.status.reasons
    if not is_here:
        status, reason = "Unknown", AWAY
        message = (
            "The node's agent does not report; look at its pod, or the agent's log on the node."
        )
    elif seen.status.ready:
        status, reason = "True", "Ready"
        message = " ".join(f"{r.message} {r.remedy}".strip() for r in reasons)
        message = message or "Containers can be checkpointed here."
    else:
        status, reason = "False", _reason(reasons[0].code if reasons else "")
        message = " ".join(f"{r.message} {r.remedy}".strip() for r in reasons)
        message = message or "The node's agent has not reported yet."
    return {
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message[:_MESSAGE_CHARS],
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }


def label_changes(node: Object, wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """What of ``wanted`` a node does not have yet."""
    has: Mapping[str, Any] = (node.get("metadata") or {}).get("labels") or {}
    return {name: value for name, value in wanted.items() if has.get(name) != value}


def condition_change(node: Object, wanted: dict[str, str]) -> dict[str, str] | None:
    """``wanted`` as it is to be written; None if the node says that already."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    has: Mapping[str, Any] = next((c for c in conditions if c.get("type") == CONDITION), {})
    if all(has.get(name) == wanted[name] for name in ("status", "reason", "message")):
        return None
    if has.get("status") == wanted["status"] and has.get("lastTransitionTime"):
        return wanted | {"lastTransitionTime": str(has["lastTransitionTime"])}
    return wanted


def _reason(code: str) -> str:
    """A code of the agent's, such as ``no_criu``, in the form that conditions have."""
    words = [word for word in _NOT_IN_REASONS.split(code) if word]
    return "".join(word[0].upper() + word[1:] for word in words) or "NotReady"
