"""The cluster's programs and their versions, each built once and kept in the cache."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from deploy.devcluster import gomodules, toolchain
from deploy.devcluster.gomodules import Recipe
from deploy.devnode import rootfs
from deploy.devnode.instance import cache_root
from deploy.devnode.rootfs import Say

KUBERNETES: Final = Recipe(
    "kubernetes-1.37.2",
    "k8s.io/kubernetes",
    "v1.37.2",
    tuple(
        f"cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        )
    ),
    stamps=("k8s.io/component-base/version.gitVersion={version}",),
)
HELM: Final = Recipe("helm-3.22.0", "helm.sh/helm/v3", "v3.22.0", ("cmd/helm",))
CONTAINERD: Final = {
    "containerd-2.4.2": Recipe(
        "containerd-2.4.2",
        "github.com/containerd/containerd/v2",
        "v2.4.2",
        ("cmd/containerd", "cmd/containerd-shim-runc-v2"),
        tags=("no_btrfs", "no_zfs", "no_devmapper"),
        stamps=("github.com/containerd/containerd/v2/version.Version={version}",),
    )
}
CRIO: Final = Recipe(
    "crio-1.34.0",
    "github.com/cri-o/cri-o",
    "v1.34.0",
    ("cmd/crio",),
    tags=("seccomp", "containers_image_openpgp", "exclude_graphdriver_btrfs"),
    cgo=True,
    c_programs=(("pinns", "pinns/src"),),
)
COREDNS: Final = Recipe(
    "coredns-1.14.7",
    "github.com/coredns/coredns",
    "v1.14.7",
    (),
    source=(Path(__file__).with_name("native") / "coredns.go").read_text(),
)
KUBECONFORM: Final = Recipe(
    "kubeconform-0.8.0", "github.com/yannh/kubeconform", "v0.8.0", ("cmd/kubeconform",)
)


def ready(recipe: Recipe, say: Say) -> Path:
    """The folder with the programs of ``recipe``, built now if it is not there yet.

    Raises:
        rootfs.BuildFailed: they could not be; the message names the log.
    """
    return rootfs.cached(
        recipe.name, recipe.key, lambda out, log: _build(recipe, out, log, say), say
    )


def _build(recipe: Recipe, out: Path, log: Path, say: Say) -> None:
    go = toolchain.find(say)
    sources = out / "sources"
    sources.mkdir(parents=True)
    # one build at a time: each takes every core
    with rootfs.locked(cache_root() / "go.lock"), log.open("w") as sink:
        gomodules.build(recipe, go, out, sources, sink)
    shutil.rmtree(sources)
