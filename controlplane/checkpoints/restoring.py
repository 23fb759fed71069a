"""Restore in one call: a pod made from a checkpoint's template, and what became of it.

A pod that did not come back from its checkpoint is removed again: who asked for the state of one that was is not
given an empty one in its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from sqlite_utils import Database

from controlplane import errors, permissions
from controlplane.checkpoints import drivers, grants, lookup, podmaking, podtemplates
from controlplane.checkpoints.arrivals import Arrivals
from controlplane.checkpoints.podmaking import IMAGE, RUNTIME, NewPod
from controlplane.checkpoints.podwatching import failed, wait_running
from controlplane.errors import Conflict, Denied, Failed, NotFound, SnapError
from controlplane.identity import Actor
from controlplane.kube import labels
from controlplane.kube.client import KubeClient
from controlplane.kube.resources import NODES, PODS, Object, uid_of
from controlplane.store import checkpoints as rows
from controlplane.store import grants as grant_rows
from controlplane.store.database import Store
from controlplane.store.records import Checkpoint, CheckpointStatus, Restore
from controlplane.store.secrets import Sealer

WAIT_S: Final = 180.0  # for images to be fetched and the restore itself
_ACCOUNT: Final = "default"
_READ_S: Final = 4.0  # a checkpoint does not wait longer for its pod's template
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoreCommand:
    """What is to be restored; empty fields are chosen.

    Attributes:
        driver: auto, runtime or image.
        mode: eager, lazy or auto; empty for the checkpoint's own, which the node knows from its grant.
        service_account: empty for ``default``; another one is an administrator's to give.
    """

    checkpoint: str
    namespace: str = ""
    pod_name: str = ""
    node_name: str = ""
    driver: str = "auto"
    mode: str = ""
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class RestoredPod:
    """A pod that goes on from a checkpoint."""

    namespace: str
    name: str
    node: str
    driver: str
    restore_ms: float
    proof: str


class Apis(Protocol):
    """The clusters' API servers (``clusters.reaching``)."""

    async def client(self, cluster: str) -> KubeClient: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of clusters and nodes; ``app`` plugs it in.

    Attributes:
        apis: the clusters' API servers.
        answers: whether the API server of a cluster can be asked, as far as is known.
        drivers: by the name of each node of a cluster whose agent is there, how it restores.
        being_prepared: the nodes of a cluster that are about to be able to.
        arrivals: hears how containers were started.
    """

    apis: Apis
    answers: Callable[[str], bool]
    drivers: Callable[[str], Mapping[str, Collection[str]]]
    being_prepared: Callable[[str], Collection[str]]
    arrivals: Arrivals


@dataclass(frozen=True, slots=True)
class _Source:
    """A checkpoint, what its pod was, and the images that its containers start from."""

    checkpoint: Checkpoint
    template: Object | None
    images: dict[str, str]
    digests: tuple[str, ...]
    granted: frozenset[str]


class PodRestoring:
    """Makes pods from checkpoints, and reads what they are made of."""

    def __init__(self, store: Store, sealer: Sealer, around: Surroundings) -> None:
        self._store = store
        self._sealer = sealer
        self._around = around

    async def template(self, cluster: str, namespace: str, pod: str, uid: str) -> Object | None:
        """The template of a pod that is checkpointed now; None where no API server has it.

        A checkpoint needs none, so no failure of an API server fails it.
        """
        if not self._around.answers(cluster):
            return None
        try:
            client = await self._around.apis.client(cluster)
            found = await client.get(PODS.path(namespace, pod), timeout_s=_READ_S)
        except SnapError as failure:
            _log.warning(
                "pod %s/%s of %s is checkpointed without its template: %s",
                *(namespace, pod, cluster, failure.details or failure.message),
            )
            return None
        same = not uid or uid_of(found) in ("", uid) or _is_mirror(found)
        return podtemplates.template_of(found) if same else None

    async def restore(self, command: RestoreCommand, actor: Actor) -> RestoredPod:
        """Make a pod from a checkpoint and wait until it goes on from there.

        Raises:
            NotFound: CHECKPOINT_NOT_FOUND, NODE_NOT_FOUND.
            Denied: the namespace is not the actor's, or not the checkpoint's and it was not shared;
                a service account that only administrators may give.
            Conflict: it has no image, or no template; no node is prepared; the pod's name is taken.
            Failed: RESTORE_FAILED, it was tried; the message says why, and what became of the pod.
            SnapError: CLUSTER_CONNECTION_FAILED.
        """
        source = await self._store.read(lambda db: _source(self._sealer, db, command.checkpoint))
        namespace = _permitted(command, source, actor)
        client = await self._around.apis.client(source.checkpoint.cluster)
        if source.template is None:
            await client.version()  # a cluster that can't be reached is the first thing to know
            raise Conflict(
                f"The template of checkpoint {source.checkpoint.id}'s pod is not stored: it was taken while the "
                "cluster's API server could not be asked. Create a pod like it with the runtime class snap and "
                f"the annotation snap.weaversoft.io/checkpoint naming {next(iter(source.images.values()))}."
            )
        wanted = self._planned(command, source, namespace)
        if command.node_name:
            await _require_node(client, command.node_name)
        body = podmaking.pod(source.template, wanted)
        try:
            made = await client.create(PODS.path(wanted.namespace), body)
        except Conflict as cause:
            raise Conflict(
                f"There is a pod {wanted.name} in namespace {wanted.namespace} already.",
                details=cause.details,
            ) from cause
        except NotFound as cause:
            raise Conflict(
                f"Cluster {client.cluster} has no namespace {wanted.namespace}.",
                details=cause.details,
            ) from cause
        return await self._followed(client, wanted, made)

    def _planned(self, command: RestoreCommand, source: _Source, namespace: str) -> NewPod:
        """Everything about the new pod."""
        found = source.checkpoint
        known = self._around.drivers(found.cluster), self._around.being_prepared(found.cluster)
        way = drivers.choose(found.cluster, command.driver, command.node_name, *known)
        return NewPod(
            namespace=namespace,
            name=command.pod_name or podmaking.fresh_name(found.pod_name),
            driver=way.driver,
            checkpoint=(found.id, source.digests[0]),
            images=source.images,
            nodes=way.nodes,
            service_account=command.service_account or _ACCOUNT,
            mode=command.mode,
            fits=fitting(found),
        )

    async def _followed(self, client: KubeClient, wanted: NewPod, made: Object) -> RestoredPod:
        """What becomes of the pod; it is removed again unless it was restored."""
        path, uid = PODS.path(wanted.namespace, wanted.name), uid_of(made)
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._outcome(client, wanted, uid)
        except TimeoutError as cause:
            failure = failed(f"it was not restored within {WAIT_S:g} s")
            raise await _removed(client, path, uid, failure) from cause
        except Failed as failure:
            raise await _removed(client, path, uid, failure) from failure
        except asyncio.CancelledError:
            # whoever asked has gone: the pod is theirs, and says by itself how it was started
            _log.info("nobody waits for pod %s any more", path)
            raise

    async def _outcome(self, client: KubeClient, wanted: NewPod, uid: str) -> RestoredPod:
        told = asyncio.create_task(
            self._around.arrivals.wait(uid, wanted.images), name=f"restore of {wanted.name}"
        )
        seen = asyncio.create_task(
            wait_running(client, wanted.namespace, wanted.name), name=f"pod {wanted.name}"
        )
        try:
            if wanted.driver == RUNTIME:
                await asyncio.wait({told, seen}, return_when=asyncio.FIRST_COMPLETED)
                if told.done():
                    return _as_told(wanted, told.result())
                await seen  # it failed, or runs: then its agent is about to tell
                return _as_told(wanted, await told)
            node = await seen
            proof = (
                f"started by the runtime of node {node} from {', '.join(wanted.images.values())}"
            )
            return RestoredPod(wanted.namespace, wanted.name, node, IMAGE, 0.0, proof)
        finally:
            for task in (told, seen):
                task.cancel()
            await asyncio.gather(told, seen, return_exceptions=True)


def _permitted(command: RestoreCommand, source: _Source, actor: Actor) -> str:
    """The namespace of the new pod, once it is known that it may be there."""
    found = source.checkpoint
    namespace = command.namespace or found.namespace
    for where in (found.namespace, namespace):
        permissions.require_namespace(actor, where)
    if command.service_account not in ("", _ACCOUNT) and not actor.is_administrator:
        raise Denied("Only an administrator can give a restored pod another service account.")
    if not source.images:
        raise Conflict(f"Checkpoint {found.id} has no image yet; push it first.")
    if namespace not in source.granted:
        raise Denied(
            f"Pods of namespace {namespace} may not be restored from checkpoint {found.id} of namespace "
            f"{found.namespace}; an administrator can share it (POST /checkpoint/{found.id}/share)."
        )
    return namespace


def fitting(found: Checkpoint) -> dict[str, str]:
    """Labels of nodes that suit a checkpoint best, by its fingerprint (``clusters.nodelabels``)."""
    made: dict[str, Any] = msgspec.json.decode(found.fingerprint_json or "{}", type=dict[str, Any])
    runtime = str(made.get("oci_runtime") or ""), str(made.get("oci_runtime_version") or "")
    return {
        "cpu-features": labels.of_cpu(made.get("cpu_features") or ()),
        "kernel": labels.value(str(made.get("kernel") or "")),
        "criu": labels.value(str(made.get("criu_version") or "")),
        "oci-runtime": labels.of_program(*runtime),
    }


def _source(sealer: Sealer, db: Database, named: str) -> _Source:
    found = lookup.find(db, named)
    images, digests = {}, []
    for one in (found, *rows.of_job(db, found.job_id)):  # the pod's other containers, made with it
        is_new = one.container_name not in images
        if is_new and one.images and one.status is not CheckpointStatus.DELETED:
            images[one.container_name] = one.images[0].reference
            digests.append(one.images[0].digest)
    granted: set[str] | None = None
    for digest in digests:
        grant = grant_rows.find(db, digest, found.cluster)
        names = set(grants.namespaces_of(grant)) if grant else set()
        granted = names if granted is None else granted & names
    template = podtemplates.find(sealer, db, found.job_id)
    return _Source(found, template, images, tuple(digests), frozenset(granted or ()))


async def _require_node(client: KubeClient, node: str) -> None:
    try:
        await client.get(NODES.path(name=node))
    except NotFound as cause:
        raise NotFound(
            f"Cluster {client.cluster} has no node {node}.", code=errors.NODE_NOT_FOUND
        ) from cause


def _as_told(wanted: NewPod, told: list[Restore]) -> RestoredPod:
    """What the agent told, as the answer."""
    for one in told:
        if one.action != "restored":
            raise failed(
                f"container {one.container_name} was not restored on node {one.node} ({one.code}): {one.reason}",
                one.details,
            )
    proof = "; ".join(
        f"{one.container_name}: {one.image.rpartition('@')[2]} restored {one.mode} by node {one.node} at {one.at}, "
        f"container {one.container_id[:12]}, running after {one.start_ms:.0f} ms"
        for one in told
    )
    longest = max(one.restore_ms for one in told)
    return RestoredPod(wanted.namespace, wanted.name, told[0].node, RUNTIME, longest, proof)


async def _removed(client: KubeClient, path: str, uid: str, failure: Failed) -> Failed:
    """Remove the pod that was made, and say so."""
    name = path.rpartition("/")[2]
    try:
        await client.delete(path, uid=uid, grace_s=0)
        ending = f"Pod {name} was removed again."
    except (NotFound, Conflict):
        ending = f"Pod {name} is gone."
    except SnapError as other:
        ending = f"Pod {name} could not be removed: {other.details or other.message}"
    message = f"The restore failed: {failure.message}. {ending}"
    return Failed(message, code=errors.RESTORE_FAILED, details=failure.details)


def _is_mirror(pod: Object) -> bool:
    """A static pod: the kubelet's UID of it is another one than the API server's."""
    return "kubernetes.io/config.mirror" in ((pod.get("metadata") or {}).get("annotations") or {})
