"""The stock way: CRI's CheckpointContainer, buildah, CRI's PullImage and restore through CreateContainer.

Source: Kubernetes, "Kubelet Checkpoint API" (the archive becomes an image by ``buildah from scratch``, ``add``,
``config --annotation``, ``commit``, ``push``); containerd 2.1, internal/cri/server (restore by annotation).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.lab import CONTAINER, Lab
from deploy.devnode.node import Node
from deploy.devnode.pods import Pod
from snap_protos.runtime.v1 import api_pb2 as cri

ANNOTATION: Final = "org.criu.checkpoint.container.name"
STEP_S: Final = 900.0
_POLICY: Final = {"default": [{"type": "insecureAcceptAnything"}]}


@dataclass(frozen=True, slots=True)
class Archive:
    """A checkpoint archive as the runtime wrote it. ``path`` is as this machine reaches it."""

    path: Path

    @property
    def size_bytes(self) -> int:
        """Of the tar."""
        return self.path.stat().st_size


def checkpoint(lab: Lab, pod: Pod) -> Archive:
    """Ask the container runtime for a checkpoint of ``pod``; the archive lies on the node's disk."""
    location = f"/var/lib/containerd/{lab.name('archive')}.tar"
    request = cri.CheckpointContainerRequest(
        container_id=pod.container_id, location=location, timeout=int(STEP_S)
    )
    lab.pods(pod.node).runtime.CheckpointContainer(request, timeout=STEP_S)
    return Archive(pod.node.host_path(location))


class Buildah:
    """buildah with a storage of its own below ``lab``'s scratch folder."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._folder = lab.scratch / "buildah"
        certificates = self._folder / "certificates"
        certificates.mkdir(parents=True, exist_ok=True)
        (certificates / "ca.crt").write_bytes(lab.world.ca_file.read_bytes())
        (self._folder / "policy.json").write_text(json.dumps(_POLICY))
        (self._folder / "registries.conf").write_text("")
        self._driver = "overlay"

    def _run(self, *words: str) -> str:
        folder = self._folder
        argv = ["buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        argv += [
            "--storage-driver",
            self._driver,
            "--registries-conf",
            str(folder / "registries.conf"),
        ]
        env = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder)}
        done = subprocess.run(
            self._lab.in_cgroup([*argv, *words]),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_S,
            env=env,
        )
        return done.stdout.strip()

    def push(self, archive: Archive, image: str) -> None:
        """``from scratch``, ``add``, ``config``, ``commit``, ``push``, with buildah's defaults."""
        policy = ["--signature-policy", str(self._folder / "policy.json")]
        registry = self._lab.world.checkpoints
        login = ["--cert-dir", str(self._folder / "certificates")]
        login += ["--creds", f"{registry.user}:{registry.password}"]
        work = self._run("from", *policy, "scratch")
        self._run("add", work, str(archive.path), "/")
        self._run("config", f"--annotation={ANNOTATION}={CONTAINER}", work)
        self._run("commit", *policy, work, image)
        self._run("push", *policy, *login, image, f"docker://{image}")

    def clear(self) -> None:
        """Remove what was built."""
        self._run("rm", "--all")
        self._run("rmi", "--all", "--force")

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """Have nothing of the block's work left after it."""
        try:
            yield
        finally:
            self.clear()


def image_name(lab: Lab, name: str) -> str:
    """``name`` at the checkpoint registry."""
    return f"{lab.world.checkpoints.host}/{name}:latest"


def forget_archive(archive: Archive) -> None:
    """Remove an archive."""
    archive.path.unlink(missing_ok=True)


def bare_dump(lab: Lab, pod: Pod) -> None:
    """What CRIU itself takes: ``runc checkpoint --leave-running`` alone, images on the node's disk."""
    images = f"/var/lib/snap/{lab.name('bare')}"
    node: Node = pod.node
    argv = ["runc", "--root", "/run/containerd/runc/k8s.io", "checkpoint", "--leave-running"]
    argv += ["--image-path", images, "--work-path", f"{images}/work", pod.container_id]
    try:
        node.run(argv, timeout_s=STEP_S)
    finally:
        node.run(["rm", "-rf", images], check=False)
