"""Helm's own check, and every object against Kubernetes' own schemas, for several sets of values."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.helm import rendering, schemas

pytestmark = pytest.mark.cluster

VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "agents of a control plane elsewhere": {
        "api": {"enabled": False},
        "agent": {
            "controlPlane": {"address": "snap.example.com:8001"},
            "ca": {"pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
            "joinToken": {"existingSecret": "snap-join"},
            "prepare": "report",
            "priorityClassName": "system-node-critical",
            "updateStrategy": {"type": "OnDelete", "rollingUpdate": None},
        },
    },
    "a control plane alone, as little allowed as possible": {
        "agent": {"enabled": False},
        "runtimeClass": {"create": False},
        "api": {"rbac": {"restorePods": False, "evictPods": False, "hooks": False}},
        "networkPolicy": {"enabled": False},
    },
    "everything": {
        "images": {
            "api": {
                "repository": "registry.example.com:5000/snap/api",
                "digest": f"sha256:{'0' * 64}",
            },
            "pullSecrets": ["pull"],
        },
        "api": {
            "adminPassword": {"existingSecret": "mine", "key": "password"},
            "sealingKey": {"existingSecret": "mine"},
            "tls": {"existingSecret": "a", "agentsSecret": "b", "extraNames": ["snap.example.com"]},
            "persistence": {"storageClass": "", "size": "20Gi", "keep": False},
            "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
            "settings": {"SNAP_RATE_LIMIT_USER": 5000, "SNAP_METRICS_OPEN": False},
            "nodeSelector": {"a": "b"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podAnnotations": {"a": "b"},
        },
        "networkPolicy": {
            "nodeCIDRs": ["10.0.0.0/16", "fd00::/64"],
            "clients": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
        },
        "metrics": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboard": {"enabled": True},
        },
        "uninstall": {"credentialsSecret": "operator"},
    },
}


def test_helm_has_nothing_against_the_chart() -> None:
    told = rendering.helm(print, ["lint", "--strict", str(rendering.CHART)])
    assert "0 chart(s) failed" in told


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_kubernetes_knows_every_field(
    values: dict[str, Any], kubeconform: Path, known_kinds: Path
) -> None:
    objects = [document.parsed for document in rendering.template(print, values=values)]
    assert objects
    _check(objects, kubeconform, known_kinds)


@pytest.mark.parametrize(
    "folder", ["base", "overlays/example", "uninstall/undo", "uninstall/forget"]
)
def test_kubernetes_knows_every_field_of_the_plain_manifests(
    folder: str, kubeconform: Path, known_kinds: Path
) -> None:
    _check(rendering.kustomized(print, rendering.KUSTOMIZE / folder), kubeconform, known_kinds)


def test_a_field_that_does_not_exist_is_found(kubeconform: Path, known_kinds: Path) -> None:
    wrong = rendering.kustomized(print, rendering.KUSTOMIZE / "base")
    deployment = next(one for one in wrong if one["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(AssertionError, match="hostPid"):
        _check(wrong, kubeconform, known_kinds)


def _check(objects: list[dict[str, Any]], kubeconform: Path, known_kinds: Path) -> None:
    argv = [str(kubeconform), "-strict", "-schema-location", f"{known_kinds}/{schemas.LOCATION}"]
    # the Prometheus operator's own kind has no schema in Kubernetes
    done = subprocess.run(
        [*argv, "-skip", "ServiceMonitor", "-"],
        check=False,
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stdout + done.stderr
