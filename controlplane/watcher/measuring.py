"""How long a pod took until it was ready: pure functions of its status."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from controlplane.kube.workloads import MUTATED, ContainerSeen, PodSeen, is_checkpoint_image

NEWS: Final = timedelta(
    minutes=10
)  # a pod that has been ready for longer may have lost that in between


def start_ms(pod: PodSeen, now: datetime) -> float | None:
    """Milliseconds from the pod's creation until it was ready, as its status has it in whole seconds.

    None: it is not ready, or not for the first time as far as can be known.
    """
    if pod.created_at is None or pod.ready_since is None or now - pod.ready_since > NEWS:
        return None
    if any(container.restarts for container in pod.containers):
        return None
    return max((pod.ready_since - pod.created_at).total_seconds(), 0.0) * 1000


def was_restored(pod: PodSeen, container: ContainerSeen, started_by: str) -> bool | None:
    """Whether a container came from a checkpoint; None: its node has not told yet.

    Args:
        started_by: what its node told: restored, cold, failed; empty: nothing.
    """
    if is_checkpoint_image(pod, container):
        return True
    if started_by:
        return started_by == "restored"
    return None if pod.labels.get(MUTATED) == "true" else False
