"""What happened to pods, in words for those who run them: checkpointed, restored, started cold and why."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.clusters.events import News, Subject
from controlplane.store.records import Checkpoint, CheckpointStatus, Restore


def of_restores(told: Iterable[Restore]) -> list[News]:
    """News of containers that asked for a restore."""
    return [news for one in told for news in _of_restore(one)]


def _of_restore(one: Restore) -> list[News]:
    who = f"container {one.container_name} of {one.namespace}/{one.pod_name}"
    digest = one.image.rpartition("@")[2]
    if one.action == "restored":
        seconds = (one.start_ms or one.restore_ms) / 1000
        note = f"; {one.reason}" if one.reason and not one.code else ""
        what = f"restored {one.mode} in {seconds:.1f} s from {digest}{note}".replace("  ", " ")
        reason, action, is_warning = "Restored", "Restore", False
    elif one.action == "cold":
        what = f"started cold because {_clause(one.reason)}"
        reason, action, is_warning = "StartedCold", "Restore", True
    else:
        what = f"not restored because {_clause(one.reason)}"
        reason, action, is_warning = "RestoreFailed", "Restore", True
    pod = Subject(one.cluster, "Pod", one.pod_name, one.namespace, one.pod_uid)
    node = Subject(one.cluster, "Node", one.node)
    of_hook = []
    if one.action == "restored" and one.code == "hook_failed":
        said = f"Container {one.container_name}: {one.reason[:1].lower()}{one.reason[1:]}"
        of_hook = [News(pod, "PostRestoreHookFailed", said, "PostRestoreHook", is_warning=True)]
    return [
        *of_hook,
        News(pod, reason, f"Container {one.container_name} {what}", action, is_warning),
        News(node, reason, f"{who[0].upper()}{who[1:]} {what}", action, is_warning),
    ]


def of_checkpoints(made: Iterable[Checkpoint]) -> list[News]:
    """News of checkpoints that were made, or failed."""
    return [news for one in made for news in _of_checkpoint(one)]


def _of_checkpoint(one: Checkpoint) -> list[News]:
    if one.status is CheckpointStatus.COMPLETED:
        what = f"checkpointed in {one.pause_ms / 1000:.2f} s of pause as {one.id}"
        reason, is_warning = "Checkpointed", False
    elif one.status is CheckpointStatus.FAILED:
        why = one.error.message if one.error else "the node did not say why"
        what, reason, is_warning = f"not checkpointed: {why}", "CheckpointFailed", True
    else:
        return []
    pod = Subject(one.cluster, "Pod", one.pod_name, one.namespace, one.pod_uid)
    node = Subject(one.cluster, "Node", one.node)
    name = f"Container {one.container_name}"
    warned = one.warnings if one.status is CheckpointStatus.COMPLETED else ()
    return [
        News(pod, reason, f"{name} {what}", "Checkpoint", is_warning),
        News(
            node,
            reason,
            f"{name} of {one.namespace}/{one.pod_name} {what}",
            "Checkpoint",
            is_warning,
        ),
        *(News(pod, "CheckpointWarning", said, "Checkpoint", True) for said in warned),
    ]


def _clause(reason: str) -> str:
    """A sentence of the agent's as what follows ``because``."""
    text = reason.removeprefix("Not restored: ").strip().rstrip(".") or "its node did not say why"
    return text[0].lower() + text[1:] if text[1:2].islower() else text
