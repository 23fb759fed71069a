"""What the chart makes of values, and the kustomize base made of its defaults."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.devcluster import programs
from deploy.devnode.rootfs import REPOSITORY, Say

CHART: Final = REPOSITORY / "deploy/helm/snap"
KUSTOMIZE: Final = REPOSITORY / "deploy/kubernetes"
NAMESPACE: Final = "snap-system"
KUBERNETES: Final = "1.37.2"
# with kustomize the Secret is the operator's own
BASE: Final = ("api.adminPassword.existingSecret=snap-admin",)
MONITORING: Final = ("metrics.serviceMonitor.enabled=true", "metrics.dashboard.enabled=true")
_HELM_ONLY: Final = re.compile(
    r"^ *(app\.kubernetes\.io/(managed-by|instance|version)|helm\.sh/[a-z-]+): .*\n",
    re.MULTILINE,
)
_EMPTY_ANNOTATIONS: Final = re.compile(r"^  annotations:\n(?! {4})", re.MULTILINE)
_HEAD: Final = "# Written by ./dev manifests from deploy/helm/snap; change it there.\n"

Object = dict[str, Any]


class RenderFailed(RuntimeError):
    """Helm or kubectl refused; the message is its own."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object as text with its comments, and the template that it came from."""

    source: str
    text: str

    @property
    def parsed(self) -> Object:
        """The object."""
        found: Object = yaml.safe_load(self.text)
        return found

    @property
    def is_hook(self) -> bool:
        """Whether Helm runs it at some moment, instead of installing it."""
        return "helm.sh/hook" in (self.parsed["metadata"].get("annotations") or {})


def template(say: Say, *sets: str, values: Mapping[str, Any] | None = None) -> list[Document]:
    """What ``helm template`` makes of the defaults, ``values`` and ``sets`` (``a.b=c``).

    Raises:
        RenderFailed: the chart refuses them.
    """
    argv = ["template", "snap", str(CHART), "-n", NAMESPACE, "--kube-version", KUBERNETES]
    argv += [word for one in sets for word in ("--set", one)]
    text = helm(say, [*argv, "-f", "-"], stdin=yaml.safe_dump(dict(values or {})))
    found = []
    for part in re.split(r"^---\n", text, flags=re.MULTILINE):
        source = re.match(r"# Source: snap/(\S+)\n", part)
        if source and yaml.safe_load(part):
            found.append(Document(source[1], part[source.end() :].strip("\n") + "\n"))
    return found


def files(say: Say) -> dict[str, str]:
    """The files below ``deploy/kubernetes`` that come from the chart, by their path there."""
    found: dict[str, list[str]] = {}
    for document in template(say, *BASE):
        found.setdefault(_place(document), []).append(document.text)
    for document in template(say, *BASE, *MONITORING):
        if document.source == "templates/monitoring.yaml":
            found.setdefault("components/monitoring/monitoring.yaml", []).append(document.text)
    found.pop("", None)
    return {name: _HEAD + "---\n".join(map(_without_helm, texts)) for name, texts in found.items()}


def _place(document: Document) -> str:
    """Where ``document`` goes; empty: kustomize has no use for it."""
    if not document.is_hook:
        return f"base/{Path(document.source).name}"
    if document.source != "templates/uninstall.yaml":
        return ""
    return f"uninstall/{document.parsed['metadata']['name'].removeprefix('snap-')}/job.yaml"


def _without_helm(text: str) -> str:
    return _EMPTY_ANNOTATIONS.sub("", _HELM_ONLY.sub("", text))


def kustomized(say: Say, folder: Path) -> list[Object]:
    """What ``kubectl kustomize`` makes of ``folder``.

    Raises:
        RenderFailed: it refuses.
    """
    kubectl = programs.ready(programs.KUBERNETES, say) / "kubectl"
    return [one for one in yaml.safe_load_all(_run([kubectl, "kustomize", folder])) if one]


def helm(say: Say, argv: Sequence[str], stdin: str = "") -> str:
    """What Helm printed; raises as ``template``."""
    return _run([programs.ready(programs.HELM, say) / "helm", *argv], stdin)


def _run(argv: Sequence[str | Path], stdin: str = "") -> str:
    done = subprocess.run(argv, check=False, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise RenderFailed(done.stderr.strip())
    return done.stdout
