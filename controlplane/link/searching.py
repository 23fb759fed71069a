"""Asking connected nodes for pods: all at once, and not for longer than whoever asked waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.checkpoints.ports import FoundContainer, FoundPod
from controlplane.errors import Refused, SnapError
from controlplane.link.frames import PodAnswer
from controlplane.link.session import Session

FIND_POD_S: Final = 12.0  # above the agent's own 10 s, so its "runtime did not answer" comes first
ASKED_AT_ONCE: Final = 100  # nodes that are asked for all their pods; then others have a turn
ASK_EVERY_S: Final = 0.05
ANOTHER_POD_S: Final = 0.25  # for other nodes to say that they have a pod of that name too


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a search.

    Attributes:
        pod: None: no node that answered has it.
        silent: for each node that does not know, why.
    """

    pod: FoundPod | None
    silent: tuple[str, ...] = ()


async def search(asked: Sequence[Session], namespace: str, pod_name: str) -> Found:
    """Ask for one pod. One that is ready wins over one that is not; else all answers are waited for.

    Raises:
        Refused: several nodes have a ready pod of that name.
    """
    tasks = {
        asyncio.create_task(s.find_pod(namespace, pod_name), name=f"ask {s.node}"): s for s in asked
    }
    try:
        best = _the_pod(await _all_found(tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Found(best, tuple(_without_answer(tasks)))


async def every_pod(asked: Sequence[Session]) -> list[tuple[str, PodAnswer]]:
    """Every pod that the nodes know, with its node; a node that does not answer is left out."""
    tasks: list[asyncio.Task[PodAnswer]] = []
    try:
        for session in asked:
            asking = session.find_pod("", "", every=True)
            tasks.append(asyncio.create_task(asking, name=f"ask {session.node}"))
            if len(tasks) % ASKED_AT_ONCE == 0:
                await asyncio.sleep(ASK_EVERY_S)
        if tasks:
            await asyncio.wait(tasks, timeout=FIND_POD_S)
    finally:
        for task in tasks:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        (session.node, pod)
        for session, answer in zip(asked, answers, strict=True)
        if not isinstance(answer, BaseException)
        for pod in answer.pods
    ]


def _found(node: str, answer: PodAnswer) -> FoundPod:
    containers = (
        FoundContainer(c.name, c.container_id, c.state, c.image_ref) for c in answer.containers
    )
    return FoundPod(node, answer.pod_uid, tuple(containers), answer.labels)


async def _all_found(
    tasks: dict[asyncio.Task[PodAnswer], Session],
) -> list[tuple[str, PodAnswer]]:
    """The answers with the pod, ready ones first. After a ready one the others get a moment only."""
    found: list[tuple[str, PodAnswer]] = []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + FIND_POD_S
    pending = set(tasks)
    while pending and (left := deadline - loop.time()) > 0:
        done, pending = await asyncio.wait(
            pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            answer = None if task.exception() else task.result()
            if answer is not None and answer.found:
                found.append((tasks[task].node, answer))
                if answer.ready:
                    deadline = min(deadline, loop.time() + ANOTHER_POD_S)
    return sorted(found, key=lambda one: not one[1].ready)


def _the_pod(found: list[tuple[str, PodAnswer]]) -> FoundPod | None:
    """The one pod that is meant.

    Raises:
        Refused: several nodes have a ready pod of that name; Kubernetes itself never does.
    """
    ready = [(node, answer) for node, answer in found if answer.ready]
    if len({answer.pod_uid for _, answer in ready}) > 1:
        nodes = ", ".join(sorted(node for node, _ in ready))
        name = f"{ready[0][1].namespace}/{ready[0][1].pod_name}"
        raise Refused(
            f"Several nodes have a pod {name}; say which one by `node_name`.",
            details=f"nodes: {nodes}",
        )
    return _found(*found[0]) if found else None


def _without_answer(tasks: dict[asyncio.Task[PodAnswer], Session]) -> list[str]:
    """For each node that does not know, why."""
    reasons = []
    for task, session in tasks.items():
        if task.cancelled():
            reasons.append(f"{session.node}: no answer within {FIND_POD_S:g} s")
        elif isinstance(failure := task.exception(), SnapError):
            reasons.append(f"{session.node}: {failure.message}")
        elif failure is None and (error := task.result().error):
            reasons.append(f"{session.node}: {error}")
    return reasons
