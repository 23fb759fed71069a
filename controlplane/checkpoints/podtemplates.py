"""The template of a checkpointed pod: what a new pod is made of, without what was this pod's only.

Kept sealed (its environment may hold secrets) under the job that made the pod's checkpoints.

Source: kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1;
kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin (the token volume that admission adds).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlite_utils import Database

from controlplane.kube.labels import PREFIX
from controlplane.kube.resources import Object
from controlplane.store import checkpoints as rows
from controlplane.store import secrets
from controlplane.store.records import CheckpointStatus
from controlplane.store.secrets import Sealer

_PREFIX: Final = "pod-template/"
_TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105 - a name
_TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
# of the pod that was, or filled in by admission and computed anew
_SPEC_DROPPED: Final = (
    "nodeName",
    "serviceAccount",
    "serviceAccountName",
    "automountServiceAccountToken",
    "priority",
    "preemptionPolicy",
    "ephemeralContainers",
    "schedulingGates",
    "overhead",
    "runtimeClassName",
)
# by these a controller would take the new pod for one of its own, and remove what is too many
_LABELS_DROPPED: Final = (
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
)
_ANNOTATIONS_DROPPED: Final = (
    "kubectl.kubernetes.io/",
    "cni.projectcalico.org/",
    "k8s.v1.cni.cncf.io/",
)


def template_of(pod: Object) -> Object:
    """What of a live pod a new one is made of: labels, annotations, spec."""
    metadata, spec = pod.get("metadata") or {}, copy.deepcopy(pod.get("spec") or {})
    for name in _SPEC_DROPPED:
        spec.pop(name, None)
    had_token = _without_token(spec)
    spec["automountServiceAccountToken"] = had_token
    spec["tolerations"] = [t for t in spec.get("tolerations") or () if not _is_filled_in(t)]
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k not in _LABELS_DROPPED}
    annotations = {
        name: value
        for name, value in (metadata.get("annotations") or {}).items()
        if not name.startswith((PREFIX, *_ANNOTATIONS_DROPPED))
    }
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _without_token(spec: dict[str, Any]) -> bool:
    """Take the token volume out that admission had put in; whether any container had it."""
    volumes = spec.get("volumes") or []
    names = {v["name"] for v in volumes if str(v.get("name")).startswith(_TOKEN_VOLUME)}
    spec["volumes"] = [v for v in volumes if v.get("name") not in names]
    had = False
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        mounts = container.get("volumeMounts") or []
        had = had or any(m.get("mountPath") == _TOKEN_PATH for m in mounts)
        container["volumeMounts"] = [m for m in mounts if m.get("name") not in names]
    return had and bool(names)


def _is_filled_in(toleration: dict[str, Any]) -> bool:
    """Whether admission added it to every pod."""
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    return toleration.get("key") in keys and toleration.get("tolerationSeconds") == 300


def keep(sealer: Sealer, db: Database, job_id: str, template: Object) -> None:
    """Seal the template of the pod that a job checkpoints."""
    sealer.put(db, _PREFIX + job_id, msgspec.json.encode(template))


def find(sealer: Sealer, db: Database, job_id: str) -> Object | None:
    """The template of the pod that a job checkpointed."""
    sealed = sealer.get(db, _PREFIX + job_id)
    return None if sealed is None else msgspec.json.decode(sealed, type=dict[str, Any])


def forget_unused(db: Database, job_ids: Iterable[str]) -> None:
    """Forget the templates of jobs of which every checkpoint is gone."""
    for job_id in job_ids:
        made = rows.of_job(db, job_id)
        if all(one.status is CheckpointStatus.DELETED for one in made):
            secrets.delete(db, _PREFIX + job_id)
