"""How a pod that was just made gets on, until it runs or can't.

Source: kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle (phases, conditions, container states).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from controlplane import errors
from controlplane.errors import Failed, SnapError
from controlplane.kube.client import KubeClient
from controlplane.kube.resources import PODS, Object

UNSCHEDULED_S: Final = 20.0  # a pod that no node takes for so long is given up
_LOOK_AGAIN_S: Final = 2.0
_HOPELESS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
    | {"CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)


@dataclass(frozen=True, slots=True)
class PodState:
    """How far a pod has come; ``reason``: why it does not go on."""

    node: str
    is_running: bool = False
    reason: str = ""
    is_waiting_for_a_node: bool = False


async def wait_running(client: KubeClient, namespace: str, name: str) -> str:
    """The node of a pod once it runs; the caller sets the deadline.

    Raises:
        Failed: RESTORE_FAILED, it can't be started.
        SnapError: the API server can't be asked.
    """
    chosen, path = {"fieldSelector": f"metadata.name={name}"}, PODS.path(namespace)
    loop = asyncio.get_running_loop()
    waits_until = loop.time() + UNSCHEDULED_S
    while True:
        listed = await client.list(path, chosen)
        if not listed.items:
            raise failed("it was deleted before it was started")
        state = state_of(listed.items[0])
        if state.reason and (not state.is_waiting_for_a_node or loop.time() > waits_until):
            raise failed(state.reason)
        if state.is_running:
            return state.node
        with suppress(SnapError):  # the next list tells
            await _change(client, path, listed.resource_version, chosen)


async def _change(client: KubeClient, path: str, version: str, chosen: dict[str, str]) -> None:
    """Return when something changed, or after a moment."""
    async with client.watch(path, version, chosen, timeout_s=_LOOK_AGAIN_S) as events:
        async for event in events:
            if event.kind != "BOOKMARK":
                return


def state_of(pod: Object) -> PodState:
    """How far a pod has come."""
    status = pod.get("status") or {}
    node = str((pod.get("spec") or {}).get("nodeName") or "")
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            words = f"{container.get('name')}: {waiting['reason']}: {waiting.get('message') or ''}"
            return PodState(node, reason=words.rstrip(": "))
    phase = status.get("phase")
    if phase in ("Failed", "Succeeded"):
        return PodState(node, reason=f"the pod ended: {status.get('message') or phase}")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            words = f"no node takes it: {condition.get('message') or condition.get('reason')}"
            return PodState(node, reason=words, is_waiting_for_a_node=True)
    return PodState(node, is_running=phase == "Running" and bool(node))


def failed(why: str, details: str = "") -> Failed:
    """A restore that did not work; ``why`` is part of a sentence."""
    return Failed(why.rstrip("."), code=errors.RESTORE_FAILED, details=details)
