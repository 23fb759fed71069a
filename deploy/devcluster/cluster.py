"""The handle on a running cluster that tests hold: kubectl, nodes, and the control plane's programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.devcluster.daemons import Daemon
from deploy.devcluster.layout import Layout
from deploy.devnode import processes
from deploy.devnode.node import Node
from deploy.devnode.world import World

CALL_S: Final = 120.0  # of a machine that may be busy with much else
DELETE_S: Final = 180.0  # until all that is deleted is gone


class KubectlFailed(RuntimeError):
    """kubectl ended with an error; the message is what it said."""


def kubectl_argv(layout: Layout, binaries: Path) -> list[str]:
    """argv of kubectl as the cluster's administrator."""
    return [str(binaries / "kubectl"), f"--kubeconfig={layout.kubeconfig}"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster. ``world`` is its nodes and registries without Kubernetes."""

    world: World
    layout: Layout
    binaries: Path
    daemons: tuple[Daemon, ...]

    def node(self, number: int) -> Node:
        """Node 1 or 2."""
        return self.world.node(number)

    def daemon(self, name: str) -> Daemon:
        """A program of the control plane, ``kube-apiserver`` or ``etcd``."""
        return next(daemon for daemon in self.daemons if daemon.name == name)

    def bring_back(self, name: str) -> None:
        """Start a program of the control plane that was killed, and wait until the API server answers again.

        Raises:
            processes.NotReady: it does not in time; the message ends with the program's log.
        """
        daemon = self.daemon(name)

        def answers() -> bool:
            if not daemon.is_running:  # its port may be taken for a moment yet
                daemon.start()
            return self.kubectl("get", "--raw", "/readyz") == "ok"

        told = lambda: processes.tail(daemon.log)  # noqa: E731
        self.wait(answers, f"the API server after the kill of {name}", told=told)

    def argv(self, *words: str) -> list[str]:
        """argv of ``kubectl WORDS`` as the administrator."""
        return [*kubectl_argv(self.layout, self.binaries), *words]

    def kubectl(self, *words: str, text_in: str = "", timeout_s: float = CALL_S) -> str:
        """What ``kubectl WORDS`` prints.

        Raises:
            KubectlFailed: it ended with an error.
            subprocess.TimeoutExpired: it was killed at the deadline.
        """
        done = subprocess.run(
            self.argv(*words),
            input=text_in,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifest: str | Mapping[str, object]) -> None:
        """Apply ``manifest``: YAML, or one object.

        Raises:
            KubectlFailed: the API server refused it.
        """
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        self.kubectl("apply", "-f", "-", text_in=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """One object.

        Raises:
            KubectlFailed: it is not there.
        """
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, name, "-n", namespace, "-ojson")
        )
        return found

    def exists(self, kind: str, name: str, namespace: str = "default") -> bool:
        """Whether that object is there."""
        asked = ("get", kind, name, "-n", namespace, "--ignore-not-found", "-oname")
        return bool(self.kubectl(*asked).strip())

    def delete(self, kind: str, name: str, namespace: str = "default", *words: str) -> None:
        """Delete an object, if it is there, and wait until it is gone.

        Raises:
            KubectlFailed: it is still there at the deadline.
        """
        asked = (
            "delete",
            kind,
            name,
            "-n",
            namespace,
            "--ignore-not-found",
            f"--timeout={DELETE_S:.0f}s",
        )
        self.kubectl(*asked, *words, timeout_s=DELETE_S + 20)

    def is_ready(self, node: str) -> bool:
        """Whether the cluster calls ``node`` Ready."""
        return self.exists("node", node) and _condition(self.get("node", node), "Ready")

    def is_pod_ready(self, name: str, namespace: str = "default") -> bool:
        """Whether pod ``name`` is there and Ready."""
        return self.exists("pod", name, namespace) and _condition(
            self.get("pod", name, namespace), "Ready"
        )

    def wait_pod(
        self, name: str, namespace: str = "default", *, timeout_s: float = CALL_S
    ) -> dict[str, Any]:
        """Wait until pod ``name`` is Ready; the pod.

        Raises:
            processes.NotReady: it did not become so in time; the message has what the cluster says of it.
        """
        self.wait(
            lambda: self.is_pod_ready(name, namespace),
            f"pod {namespace}/{name}",
            timeout_s,
            lambda: self.kubectl("describe", "pod", name, "-n", namespace),
        )
        return self.get("pod", name, namespace)

    def wait(
        self,
        ready: Callable[[], bool],
        what: str,
        timeout_s: float = CALL_S,
        told: Callable[[], str] = lambda: "",
    ) -> None:
        """Wait until ``ready``; what kubectl can't say yet, as of a container before it runs, is not ready.

        Raises:
            processes.NotReady: it did not become so in time; ``told()`` is added to the message.
        """
        refused = ""

        def is_ready() -> bool:
            nonlocal refused
            try:
                return ready()
            except KubectlFailed as failure:
                refused = f"\nlast refused: {failure}"
                return False

        try:
            processes.wait_until(is_ready, what, timeout_s=timeout_s, pause_s=0.3)
        except processes.NotReady as late:
            raise processes.NotReady(f"{late}{refused}\n{_heard(told)}") from late


def _heard(told: Callable[[], str]) -> str:
    try:
        return told()
    except KubectlFailed as failure:
        return str(failure)


def _condition(found: dict[str, Any], kind: str) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)
