"""What to do about a pod that is being created: a pure function from an AdmissionReview to the answer.

Every review is allowed, whatever is in it; a pod is changed only if it would really start from a checkpoint. The same
pod again (another webhook changed something) gives no further change.

Source: the Kubernetes API reference, AdmissionReview v1; docs "Dynamic Admission Control".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from controlplane.hook import patching
from controlplane.hook.index import ClusterSeen, Index
from controlplane.hook.patching import Operation
from controlplane.kube.asking import asks, claimed_mount, container_of, difference
from controlplane.kube.workloads import (
    ALIKE,
    CHECKPOINT,
    MUTATED,
    NOT_RESTORED,
    RUNTIME_CLASS,
    SNAP,
    WITH_VOLUMES,
    ContainerSeen,
    PodSeen,
    chosen,
    read_pod,
)
from controlplane.store.workloads import Offer

NEVER: Final = frozenset({"kube-system"})
PREFERRED: Final = 50  # nodes named at most; more, and the scheduler may choose freely
REASON_LETTERS: Final = 500
_API: Final = "admission.k8s.io/v1"
_UID_LETTERS: Final = 253
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Policy:
    """How a hook answers.

    Attributes:
        driver: runtime or image.
        partial: enough that one node that the pod could use can restore.
        namespaces_left_alone: besides ``NEVER``.
        key: of the digests of what containers ask for.
    """

    cluster: str
    driver: str = "runtime"
    partial: bool = False
    namespaces_left_alone: frozenset[str] = NEVER
    key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, and what it means.

    Attributes:
        restores: container → image; empty: the pod starts cold.
        reason: why it is left alone, or containers of it; empty: not asked for, or all restored.
        dry_run: nothing will come of it.
    """

    response: dict[str, Any]
    restores: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    dry_run: bool = False


class NotAReview(Exception):
    """What was sent is no AdmissionReview; there is nothing to answer."""


class _Alone(Exception):
    """The pod, or a container, is to start cold; the message says why."""


def answer(review: object, policy: Policy, index: Index, cluster: ClusterSeen) -> Answer:
    """The answer to ``review`` (decoded JSON).

    Raises:
        NotAReview: it has no uid to answer to.
    """
    request = review.get("request") if isinstance(review, dict) else None
    uid = request.get("uid") if isinstance(request, dict) else None
    if (
        not isinstance(request, dict)
        or not isinstance(uid, str)
        or not 0 < len(uid) <= _UID_LETTERS
    ):
        raise NotAReview
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    envelope = {"apiVersion": _API, "kind": "AdmissionReview", "response": response}
    pod, dry_run = request.get("object"), request.get("dryRun") is True
    if not isinstance(pod, dict) or not _is_meant(request, pod, policy):
        return Answer(envelope, dry_run=dry_run)
    spec = pod["spec"]
    seen = read_pod(pod, str(request.get("namespace") or ""))
    try:
        offers, reasons = _offers(spec, seen, policy, index)
        fitting = _nodes(spec, offers, policy, index, cluster)
        operations = _restoring(pod, offers, reasons, policy, fitting)
    except _Alone as why:
        offers, reasons = {}, [str(why)]
        operations = _marked(pod, reasons)
    if operations:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(_encode(operations)).decode()
    restores = {name: offer.reference for name, offer in offers.items()}
    return Answer(envelope, restores, "; ".join(reasons), dry_run)


def _is_meant(request: Mapping[str, Any], pod: Mapping[str, Any], policy: Policy) -> bool:
    """Whether the review is of a new pod that asks for this; what the webhook's selectors say, said again."""
    metadata, spec = pod.get("metadata"), pod.get("spec")
    if request.get("operation") != "CREATE" or request.get("subResource"):
        return False
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return False
    kind = request.get("kind")
    if isinstance(kind, dict) and (kind.get("group"), kind.get("kind")) != ("", "Pod"):
        return False
    labels, annotations = metadata.get("labels"), metadata.get("annotations")
    if not isinstance(labels, dict) or labels.get(SNAP) != "true":
        return False
    if isinstance(annotations, dict) and (CHECKPOINT in annotations or _is_mirror(annotations)):
        return False  # decided already, by an earlier call or by who made the pod
    if labels.get(MUTATED) == "true" and policy.driver == "image":
        return False
    return str(request.get("namespace")) not in policy.namespaces_left_alone | NEVER


def _is_mirror(annotations: Mapping[str, Any]) -> bool:
    return "kubernetes.io/config.mirror" in annotations


def _offers(
    spec: Mapping[str, Any], pod: PodSeen, policy: Policy, index: Index
) -> tuple[dict[str, Offer], list[str]]:
    """Container → what it starts from; and why others have nothing."""
    if spec.get("runtimeClassName") not in (None, "", RUNTIME_CLASS):
        raise _Alone(f"the pod has a runtimeClassName of its own ({spec['runtimeClassName']})")
    found: dict[str, Offer] = {}
    reasons = []
    for container in chosen(pod):
        try:
            found[container.name] = _offer(spec, pod, container, policy, index)
        except _Alone as why:
            reasons.append(f"{container.name}: {why}")
    return found, reasons


def _offer(
    spec: Mapping[str, Any], pod: PodSeen, container: ContainerSeen, policy: Policy, index: Index
) -> Offer:
    """The newest checkpoint that the container may start from."""
    candidates = index.find(policy.cluster, pod, container)
    if not candidates:
        raise _Alone(_nothing_of(pod))
    given = container_of(spec, container.name)
    if (path := claimed_mount(spec, given)) and pod.annotations.get(WITH_VOLUMES) != "true":
        raise _Alone(
            f"it may write to the claimed volume at {path}, whose content is not the checkpoint's "
            f'(annotation {WITH_VOLUMES}: "true" accepts that)'
        )
    wanted = asks(spec, given, policy.key)
    reason = ""
    for offer in candidates:
        if different := difference(offer.asks, wanted):
            reason = reason or f"it asks for another {different} than the checkpointed one"
        elif slow := index.not_worth_it(offer):
            reason = slow
        else:
            return offer
    raise _Alone(reason)


def _nothing_of(pod: PodSeen) -> str:
    if not pod.is_one_of_its_kind:
        return "there is no checkpoint of this workload"
    return (
        f"there is no checkpoint of {pod.name}, and others of its StatefulSet are not it "
        f'(annotation {ALIKE}: "true" says that they are alike)'
    )


def _nodes(
    spec: Mapping[str, Any],
    offers: Mapping[str, Offer],
    policy: Policy,
    index: Index,
    cluster: ClusterSeen,
) -> list[str]:
    """The nodes that should be preferred; empty: any will do.

    Raises:
        _Alone: with the handler the pod might not start where it could without.
    """
    if policy.driver == "image" or not offers:
        return []
    if not cluster.has_runtime_class:
        raise _Alone(f"the cluster has no RuntimeClass {RUNTIME_CLASS}")
    unprepared, prepared = cluster.usable(spec)
    if not policy.partial and unprepared:
        raise _Alone(f"node {unprepared} could get the pod, and is not prepared for restores")
    if not prepared:
        raise _Alone("no node that the pod could use is prepared for restores")
    sets = [cluster.fitting(offer, index.needs(offer)) for offer in offers.values()]
    fitting = [name for name in prepared if all(name in one for one in sets)]
    if not fitting:
        raise _Alone("no node has what the checkpoint needs (CPU, kernel, CRIU)")
    return fitting if len(fitting) < len(prepared) and len(fitting) <= PREFERRED else []


def _restoring(
    pod: Mapping[str, Any],
    offers: Mapping[str, Offer],
    reasons: list[str],
    policy: Policy,
    preferred: list[str],
) -> list[Operation]:
    """The operations that make the pod start from ``offers``, and say why other containers don't."""
    if not offers:
        return _marked(pod, reasons)
    metadata, spec = pod["metadata"], pod["spec"]
    images = {name: offer.reference for name, offer in offers.items()}
    annotations = _reasons(reasons) | {CHECKPOINT: _encode(images).decode()}
    operations = patching.put(metadata, ("metadata", "labels"), {MUTATED: "true"})
    operations += patching.put(metadata, ("metadata", "annotations"), annotations)
    if not reasons:  # of an earlier call, before another webhook made the pod fit
        operations += patching.drop(metadata, ("metadata", "annotations"), NOT_RESTORED)
    if policy.driver == "image":
        return operations + patching.images(spec, images)
    operations += patching.runtime_class(spec, RUNTIME_CLASS)
    return operations + (patching.prefer_nodes(spec, preferred) if preferred else [])


def _marked(pod: Mapping[str, Any], reasons: list[str]) -> list[Operation]:
    """The operations that tell the pod why it starts cold."""
    if not reasons:
        return []
    return patching.put(pod["metadata"], ("metadata", "annotations"), _reasons(reasons))


def _reasons(reasons: list[str]) -> dict[str, str]:
    return {NOT_RESTORED: "; ".join(reasons)[:REASON_LETTERS]} if reasons else {}
