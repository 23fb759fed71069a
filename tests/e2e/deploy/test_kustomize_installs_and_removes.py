"""Installed by kustomize on a real cluster, as the papers say: agents join, a pod moves, nothing is left."""

from __future__ import annotations

import ipaddress
import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.devcluster.cluster import Cluster
from deploy.helm import rendering
from tests.e2e.deploy import installations, interrupting
from tests.e2e.deploy.installations import ADMIN, SETTINGS, Installation

pytestmark = pytest.mark.cluster

NAMESPACE = rendering.NAMESPACE
CLUSTER = "production"  # as the example has it
WAIT = "--timeout=400s"
WAIT_S = 420.0


class Applied(Installation):
    """Installed from ``manifests``, a copy of deploy/kubernetes with an overlay of this cluster's own."""

    def __init__(self, cluster: Cluster, manifests: Path) -> None:
        super().__init__(cluster, NAMESPACE, CLUSTER)
        self.manifests = manifests
        password = f"--from-literal=admin-password={secrets.token_urlsafe(18)}"
        self.kubectl("-n", NAMESPACE, "create", "secret", "generic", ADMIN, password)
        self.apply()

    def apply(self) -> None:
        """Apply the overlay as it is now, and wait until everything runs."""
        self.kubectl("apply", "-k", self.overlay)
        for workload in ("deployment/snap-api", "daemonset/snap-agent"):
            self.kubectl("-n", NAMESPACE, "rollout", "status", workload, WAIT)

    def replace_both(self) -> None:
        """Change the pods of both programs in the overlay, and apply it."""
        kustomization = self.manifests / "overlays/example/kustomization.yaml"
        _patch(kustomization, _annotated("Deployment", "snap-api"))
        _patch(kustomization, _annotated("DaemonSet", "snap-agent"))
        self.apply()

    @property
    def overlay(self) -> str:
        """The folder that is applied."""
        return str(self.manifests / "overlays/example")

    def kubectl(self, *words: str) -> str:
        """kubectl, for what takes its time."""
        return self.cluster.kubectl(*words, timeout_s=WAIT_S)

    def remove(self) -> None:
        """Delete what the overlay made."""
        self.kubectl("delete", "-k", self.overlay, "--ignore-not-found", WAIT)

    def run_job(self, name: str, namespace: str) -> None:
        """Run a job of deploy/kubernetes/uninstall to its end."""
        self.kubectl("apply", "-k", str(self.manifests / "uninstall" / name))
        job = f"job/snap-{name}"
        self.kubectl("-n", namespace, "wait", "--for=condition=complete", WAIT, job)


@pytest.fixture(scope="module")
def manifests(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests with the example's overlay made this cluster's own, as its comments say."""
    copy = tmp_path_factory.mktemp("manifests") / "kubernetes"
    shutil.copytree(rendering.KUSTOMIZE, copy)
    pushed = installations.images(cluster)
    images = [
        {"name": f"snap-{half}", "newName": name, "digest": digest}
        for half, (name, digest) in pushed.items()
    ]
    overlay = copy / "overlays/example"
    nodes = overlay / "node-addresses.yaml"
    nodes.write_text(nodes.read_text().replace("10.0.0.0/16", _addresses(cluster)))
    kustomization = overlay / "kustomization.yaml"
    claim = kustomization.read_text().replace("value: standard", 'value: ""')
    kustomization.write_text(claim)
    _change(kustomization, images, _daemon_set_has_settings())
    _change(copy / "uninstall/undo/kustomization.yaml", images, _job_knows_the_cluster())
    _change(copy / "uninstall/forget/kustomization.yaml", images)
    return copy


@pytest.fixture(scope="module")
def applied(cluster: Cluster, manifests: Path) -> Iterator[Applied]:
    """Installed once; every trace is gone afterwards."""
    with installations.bare(cluster, NAMESPACE):
        try:
            yield Applied(cluster, manifests)
        finally:
            for folder in ("uninstall/forget", "overlays/example"):
                words = ("delete", "-k", str(manifests / folder), "--ignore-not-found", WAIT)
                cluster.kubectl(*words, timeout_s=WAIT_S)


@pytest.fixture(scope="module")
def pushing(applied: Applied) -> Applied:
    """The same, with a registry for checkpoint images."""
    applied.wait_joined()
    applied.add_registry()
    return applied


def test_both_nodes_join_and_a_pod_goes_on_on_the_other_one(pushing: Applied) -> None:
    pushing.check_a_pod_moves()


def test_jobs_go_on_while_a_changed_overlay_is_applied(pushing: Applied) -> None:
    pushing.wait_joined()
    interrupting.check_jobs_go_on(pushing, pushing.replace_both)


def test_nothing_of_it_stays_in_the_cluster_or_on_its_nodes(applied: Applied) -> None:
    cluster = applied.cluster
    applied.wait_joined()
    assert installations.prepared(cluster) != applied.before
    applied.run_job("undo", NAMESPACE)
    assert installations.prepared(cluster) == applied.before
    applied.remove()
    assert not cluster.exists("namespace", NAMESPACE)
    applied.run_job("forget", "default")
    forget = str(applied.manifests / "uninstall/forget")
    applied.kubectl("delete", "-k", forget, WAIT)
    installations.check_nothing_is_left(cluster, applied.before)


def _change(kustomization: Path, images: list[dict[str, str]], *patches: dict[str, Any]) -> None:
    """Give it these images, and these patches beside its own."""
    found: dict[str, Any] = yaml.safe_load(kustomization.read_text())
    found["images"] = images
    kustomization.write_text(yaml.safe_dump(found))
    _patch(kustomization, *patches)


def _patch(kustomization: Path, *patches: dict[str, Any]) -> None:
    found: dict[str, Any] = yaml.safe_load(kustomization.read_text())
    found["patches"] = [*found.get("patches", []), *patches]
    kustomization.write_text(yaml.safe_dump(found))


def _annotated(kind: str, name: str) -> dict[str, Any]:
    template = {"metadata": {"annotations": {"again": "jobs"}}}
    metadata = {"name": name, "namespace": NAMESPACE}
    patch = {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata}
    return {"patch": json.dumps({**patch, "spec": {"template": template}})}


def _addresses(cluster: Cluster) -> str:
    """The network that both nodes are in."""
    return str(ipaddress.ip_network(f"{cluster.world.instance.address(1)}/24", strict=False))


def _daemon_set_has_settings() -> dict[str, Any]:
    place = "/spec/template/spec/containers/0/env/-"
    patch = [
        {"op": "add", "path": place, "value": {"name": name, "value": value}}
        for name, value in SETTINGS.items()
    ]
    return {"target": {"kind": "DaemonSet", "name": "snap-agent"}, "patch": json.dumps(patch)}


def _job_knows_the_cluster() -> dict[str, Any]:
    container = {"name": "undo", "env": [{"name": "SNAP_CLUSTER_NAME", "value": CLUSTER}]}
    patch = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "snap-undo", "namespace": NAMESPACE},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    return {"patch": json.dumps(patch)}
