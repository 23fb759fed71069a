"""Which containers of a pod a request means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane import errors
from controlplane.checkpoints.ports import FoundContainer, FoundPod
from controlplane.errors import NotFound, Refused

ALL = "*"
_RUNNING = "running"


def declared(pod: FoundPod, template: Mapping[str, Any] | None) -> frozenset[str]:
    """Names of the pod's containers, without init, sidecar and ephemeral ones where its template tells.

    A runtime does not know which are which, so without a template they are all that it has.
    """
    if template is None:
        return frozenset(one.name for one in pod.containers)
    listed = (template.get("spec") or {}).get("containers") or ()
    return frozenset(str(one.get("name")) for one in listed)


def choose(
    pod: FoundPod, pod_name: str, wanted: str, template: Mapping[str, Any] | None = None
) -> tuple[FoundContainer, ...]:
    """The containers that ``wanted`` means: a name, ``*`` for all, empty for the only one.

    Sidecars are meant by their names only: hooks and restores leave them to start as they always do.

    Args:
        template: what the pod is made of; None: nobody knows.

    Raises:
        NotFound: CONTAINER_NOT_FOUND.
        Refused: it is not running (CHECKPOINT_REFUSED), or several could be meant.
    """
    names = declared(pod, template)
    running = tuple(c for c in pod.containers if c.state == _RUNNING and c.name in names)
    if wanted not in ("", ALL):
        return (_named(pod, pod_name, wanted),)
    if not running:
        states = ", ".join(f"{c.name} is {c.state}" for c in pod.containers) or "it has none"
        raise Refused(
            f"No container of pod {pod_name} is running; only a running one can be checkpointed.",
            code=errors.CHECKPOINT_REFUSED,
            details=states,
        )
    if wanted == ALL or len(running) == 1:
        return running
    listed = ", ".join(sorted(container.name for container in running))
    raise Refused(
        f"Pod {pod_name} has several containers; give container_name (or * for all): {listed}."
    )


def _named(pod: FoundPod, pod_name: str, wanted: str) -> FoundContainer:
    """The container of this name; of several tries of it the one that runs."""
    named = [container for container in pod.containers if container.name == wanted]
    for container in named:
        if container.state == _RUNNING:
            return container
    if named:
        raise Refused(
            f"Container {wanted} of pod {pod_name} is not running (it is {named[0].state}); "
            "only a running one can be checkpointed.",
            code=errors.CHECKPOINT_REFUSED,
        )
    names = ", ".join(sorted({container.name for container in pod.containers})) or "none"
    raise NotFound(
        f"Pod {pod_name} has no container {wanted}.",
        code=errors.CONTAINER_NOT_FOUND,
        details=f"its containers: {names}",
    )
