"""AdmissionReviews as a real API server sends them, with all that it adds to a Deployment's pod."""

from __future__ import annotations

import json
import random
from typing import Any

from controlplane.workload import Workload

_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_HASH = "7d9f8b6c5d"


def workload(number: int) -> Workload:
    """The workload ``number``."""
    namespace, owner = f"team-{number % 40}", f"app-{number}"
    return Workload("bench", namespace, "Deployment", owner, "app", _HASH, f"sha256:{number:064x}")


def body(number: int, count: int, source: random.Random) -> bytes:
    """A review: of a workload that has a checkpoint, of one that has none, of one that asks for something else."""
    kind = source.random()
    found = pod(number % count if kind < 0.7 else count + number)
    if kind > 0.9:
        found = pod(number % count)
        found["spec"]["containers"][0]["env"][0]["value"] = "another"
    request = {
        "uid": f"{source.getrandbits(128):032x}",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": found["metadata"]["namespace"],
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": found,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(review).encode()


def pod(number: int) -> dict[str, Any]:
    """A pod of the workload ``number``."""
    of = workload(number)
    token = f"kube-api-access-{number % 100_000:05}"
    env = [{"name": f"SETTING_{n}", "value": f"value {n}"} for n in range(20)]
    labels = {"app": of.owner_name, "pod-template-hash": _HASH, "snap.weaversoft.io/snap": "true"}
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {f"f:{name}": {} for name in labels}}}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{of.owner_name}-{_HASH}"}
    resources = {"limits": {"cpu": "2", "memory": "2Gi"}, "requests": {"cpu": "1"}}
    container = {
        "name": "app",
        "image": f"registry.example/{of.owner_name}:1.2.3",
        "env": env,
        "resources": resources,
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "volumeMounts": [
            {"name": "cache", "mountPath": "/cache"},
            {"name": token, "mountPath": _TOKEN, "readOnly": True},
        ],
        "startupProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}},
        "terminationMessagePath": "/dev/termination-log",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True},
    }
    sources = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]
    waits = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": f"{of.owner_name}-{_HASH}-",
            "namespace": of.namespace,
            "labels": labels,
            "ownerReferences": [owner | {"uid": "4c5b", "controller": True}],
            "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": fields}],
        },
        "spec": {
            "volumes": [
                {"name": "cache", "emptyDir": {}},
                {"name": token, "projected": {"sources": sources, "defaultMode": 420}},
            ],
            "containers": [container],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "securityContext": {"fsGroup": 1000},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready"} | waits,
                {"key": "node.kubernetes.io/unreachable"} | waits,
            ],
            "priority": 0,
        },
        "status": {},
    }


def node(number: int) -> dict[str, Any]:
    """A prepared node."""
    name = f"node-{number}"
    labels = {"kubernetes.io/hostname": name, "snap.weaversoft.io/runtime": "true"}
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}
