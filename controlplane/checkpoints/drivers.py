"""Which way a pod is restored, by what the nodes' agents report: behind the OCI runtime, or by the runtime itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.checkpoints.podmaking import IMAGE, RUNTIME
from controlplane.errors import Conflict

_WHO_RESTORES_IMAGES: Final = (
    "containerd 2.1 to 2.3 do, some only when told; CRI-O takes its own alone; use driver runtime"
)
_SOON: Final = "ask again when it is ready, in some seconds"


@dataclass(frozen=True, slots=True)
class Way:
    """A driver, and the nodes that the pod must be on; none: any."""

    driver: str
    nodes: tuple[str, ...] = ()


def choose(
    cluster: str,
    asked: str,
    node: str,
    known: Mapping[str, Collection[str]],
    being_prepared: Collection[str] = (),
) -> Way:
    """The driver and where. ``image`` only when it is asked for: with it a pod can't start cold.

    Args:
        asked: auto, runtime or image.
        node: where the pod must run; empty for any.
        known: the drivers of each node whose agent is there. Of others nothing is known: what becomes of the
            pod decides.
        being_prepared: the nodes that are about to be able to.

    Raises:
        Conflict: it can't be done there.
    """
    driver = IMAGE if asked == IMAGE else RUNTIME
    able = tuple(sorted(name for name, drivers in known.items() if driver in drivers))
    if node:
        if node in able or node not in known:
            return Way(driver, (node,))
        if driver == RUNTIME and node in being_prepared:
            raise Conflict(f"Node {node} is being prepared for restores; {_SOON}.")
        raise Conflict(_on_the_node(cluster, node, driver))
    if not able:
        if driver == RUNTIME and being_prepared:
            names = ", ".join(sorted(being_prepared))
            raise Conflict(
                f"Of cluster {cluster}, {names} is being prepared for restores; {_SOON}."
            )
        raise Conflict(_nowhere(cluster, driver))
    # a pod of driver `runtime` goes to prepared nodes by its RuntimeClass
    return Way(driver, able if driver == IMAGE and len(able) < len(known) else ())


def _on_the_node(cluster: str, node: str, driver: str) -> str:
    if driver == IMAGE:
        return f"The container runtime of node {node} restores no images itself ({_WHO_RESTORES_IMAGES})."
    path = f"/cluster/{cluster}/nodes/{node}/prepare"
    return f"Node {node} is not prepared for restores; POST {path} first."


def _nowhere(cluster: str, driver: str) -> str:
    if driver == IMAGE:
        return (
            f"No node of cluster {cluster} is known to restore images itself "
            f"({_WHO_RESTORES_IMAGES})."
        )
    path = f"/cluster/{cluster}/nodes/<node>/prepare"
    return (
        f"No node of cluster {cluster} is prepared for restores; POST {path} for one of them first."
    )
