"""One node: how it is started, entered, and spoken to from this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from deploy.devnode import cgroups, containerd, network, processes
from deploy.devnode.instance import NODE_NUMBERS, Instance
from deploy.devnode.processes import Launch
from deploy.devnode.rootfs import REPOSITORY, NodeParts
from snap_protos.runtime.v1 import api_pb2 as cri
from snap_protos.runtime.v1 import api_pb2_grpc as services

INIT: Final = Path(__file__).with_name("node-init.sh")
PROBE_S: Final = 5.0
SERVICES: Final = "etc/devnode/services"
CRI_SOCKETS: Final = ("run/containerd/containerd.sock", "run/crio/crio.sock")
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONPATH": "/opt/snap/src:/opt/snap/site",
    "PYTHONPYCACHEPREFIX": "/var/cache/pycache",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",  # with the registries' CA
}
HELPERS: Final = {  # what `prepare` puts on a node; copied when the checkout has it
    "snap-runc": REPOSITORY / "agent/restore/snap-runc.sh",
    "snap-dump": REPOSITORY / "agent/checkpoint/snap-dump.sh",
}


@dataclass(frozen=True, slots=True)
class Fittings:
    """What one node has beyond the common tree.

    Attributes:
        files: contents by path below /.
        binds: folders of this machine by the path where the node reads them.
        services: shell scripts by name; the node's init keeps them running.
        programs: shell scripts by path below /.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    binds: Mapping[str, Path] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, more: Fittings) -> Fittings:
        return Fittings(
            {**self.files, **more.files},
            {**self.binds, **more.binds},
            {**self.services, **more.services},
            {**self.programs, **more.programs},
        )


@dataclass(frozen=True, slots=True)
class Node:
    """A running node. ``init_pid`` is its first process as this machine numbers it."""

    instance: Instance
    number: int
    init_pid: int
    init_started: str

    @property
    def name(self) -> str:
        """Its host name, also the name it has in a cluster."""
        return f"node{self.number}"

    @property
    def address(self) -> str:
        """Its address on the bridge."""
        return self.instance.address(self.number)

    @property
    def root(self) -> Path:
        """The node's own / as seen from this machine."""
        return Path(f"/proc/{self.init_pid}/root")

    @property
    def cri_socket(self) -> Path:
        """The runtime's socket (containerd's, while there is none yet), usable from this machine."""
        found = [self.root / path for path in CRI_SOCKETS if (self.root / path).exists()]
        return found[0] if found else self.root / CRI_SOCKETS[0]

    @property
    def pod_cgroup(self) -> str:
        """Cgroup parent for pods (as the node sees it)."""
        return "/kubepods"

    @property
    def log(self) -> Path:
        """What the node's init wrote."""
        return self.instance.state / self.name / "init.log"

    def log_of(self, service: str) -> Path:
        """What a service of the node wrote."""
        return self.instance.state / self.name / f"upper/var/log/{service}.log"

    @property
    def is_running(self) -> bool:
        """Whether its init is there."""
        return processes.is_running(self.init_pid, self.init_started)

    def cgroup(self, name: str) -> str:
        """Where, below the hierarchies' roots, the node's own service ``name`` lives."""
        return f"{self.instance.cgroup}/{self.name}/{name}"

    def argv(self, command: Sequence[str], *, service: str = "init") -> list[str]:
        """``command`` so that it runs inside the node, in the cgroup of ``service``."""
        folders = cgroups.make(self.cgroup(service))
        enter = ["nsenter", "-t", str(self.init_pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        # die with nsenter: whoever kills the process that was started means the command
        return cgroups.entering(folders, [*enter, "setpriv", "--pdeathsig", "KILL", "--", *command])

    def run(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = 60,
        text_in: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` inside the node and wait for it.

        Raises:
            subprocess.CalledProcessError: it failed and ``check`` is set.
            subprocess.TimeoutExpired: it was killed at the deadline.
        """
        return subprocess.run(
            self.argv(command),
            input="" if text_in is None else text_in,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout_s,
            env=ENVIRONMENT,
        )

    def host_path(self, path: str) -> Path:
        """The node's ``path`` as this machine reaches it (links inside the node are not followed safely)."""
        return self.root / path.lstrip("/")

    def kill_containerd(self) -> None:
        """``kill -9`` containerd; the node's init starts it again."""
        self.run(["pkill", "-9", "-x", "containerd"], check=False)

    def make_bare(self) -> None:
        """Have the node as one that nobody prepared: no handler ``snap``, nothing below /opt/snap/bin."""
        for entry in self.host_path("/opt/snap/bin").iterdir():
            entry.unlink()
        self.configure(containerd.config(self.instance, handler=False))

    def equip(self) -> None:
        """Undo ``make_bare``."""
        self.refresh()
        self.configure(containerd.config(self.instance))

    def configure(self, config: str) -> None:
        """Start containerd anew with ``config``; its containers live on.

        Raises:
            processes.NotReady: it did not come back.
        """
        self.host_path(containerd.CONFIG).write_text(config)
        before = self.containerd_pid()
        self.kill_containerd()
        processes.wait_until(
            lambda: self.containerd_pid() not in ("", before) and _serves(self.cri_socket),
            f"containerd on {self.name}",
            timeout_s=120,
            log=self.log,
        )

    def containerd_pid(self) -> str:
        """The pid that containerd has on the node; empty while there is none."""
        return self.run(["pgrep", "-o", "-x", "containerd"], check=False).stdout.strip()

    def refresh(self) -> None:
        """Copy the agent's helpers of the checkout into the node again."""
        _install_helpers(self.root)

    def stop(self) -> None:
        """Kill the node with everything in it and remove its cgroups; its folder stays until the instance goes."""
        everything = f"{self.instance.cgroup}/{self.name}"
        cgroups.kill(everything)
        cgroups.remove(everything)
        processes.reap()
        _record(self.instance, self.number).unlink(missing_ok=True)


def _record(instance: Instance, number: int) -> Path:
    return instance.state / f"node{number}.json"


def find(instance: Instance, number: int) -> Node | None:
    """The node if it is running."""
    try:
        seen = json.loads(_record(instance, number).read_text())
    except FileNotFoundError:
        return None
    node = Node(instance, number, seen["init_pid"], seen["init_started"])
    return node if node.is_running else None


def fittings(instance: Instance, number: int, ca: Path) -> Fittings:
    """A node with containerd, the handler ``snap`` and the agent's helpers."""
    return Fittings(
        containerd.files(instance, number, ca), services={"containerd": containerd.SERVICE}
    )


def start(instance: Instance, number: int, parts: NodeParts, fitted: Fittings) -> Node:
    """Start a node from nothing: its own root over the shared tree, its namespaces, its cable, its services.

    Raises:
        processes.NotReady: it did not come up; the message ends with its log.
    """
    folder = instance.state / f"node{number}"
    _lay_out(folder, instance, number, fitted, parts)
    launch = Launch(
        _unshare(),
        f"{instance.cgroup}/node{number}",
        folder / "init.log",
        _environment(instance, number, parts, folder, fitted),
    )
    outer = processes.start(launch)
    init_pid = processes.only_child(outer, log=folder / "init.log")
    node = Node(instance, number, init_pid, processes.start_time(init_pid))
    seen = {"init_pid": init_pid, "init_started": node.init_started}
    _record(instance, number).write_text(json.dumps(seen))
    network.plug_in(instance, number, init_pid)
    return node


def wait_ready(node: Node, *, timeout_s: float = 120) -> None:
    """Wait until containerd answers on its socket and the node has its route.

    Raises:
        processes.NotReady: it did not in time.
    """
    processes.wait_until(
        lambda: _serves(node.cri_socket),
        node.name,
        timeout_s=timeout_s,
        log=node.log,
        alive=lambda: node.is_running,
    )
    network.route_pods(node.instance, node.number)


def _unshare() -> list[str]:
    return [
        "unshare",
        "-m",
        "-p",
        "-n",
        "-u",
        "-i",
        "-C",
        "--fork",
        "--kill-child",
        "sh",
        str(INIT),
    ]


def _lay_out(
    folder: Path, instance: Instance, number: int, fitted: Fittings, parts: NodeParts
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("root", "upper", "work", "data"):
        (folder / name).mkdir(parents=True)
    upper = folder / "upper"
    public = parts.root / "etc/ssl/certs/ca-certificates.crt"
    ca = fitted.files[containerd.CA]
    _write(upper, "etc/ssl/certs/ca-certificates.crt", public.read_text() + ca)
    _write(upper, "etc/hostname", f"node{number}\n")
    _write(upper, "etc/hosts", f"127.0.0.1 localhost\n{instance.address(number)} node{number}\n")
    for path, content in fitted.files.items():
        _write(upper, path, content, mode=0o600)  # keys are among them
    services = {f"{SERVICES}/{name}": script for name, script in fitted.services.items()}
    for path, script in {**services, **fitted.programs}.items():
        _write(upper, path, f"#!/bin/sh\n{script}\n", mode=0o755)
    _install_helpers(upper)


def _write(root: Path, path: str, content: str, *, mode: int = 0o644) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=mode)
    target.write_text(content)


def _install_helpers(root: Path) -> None:
    for name, source in HELPERS.items():
        target = root / "opt/snap/bin" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(name + ".tmp")
        if source.is_file():
            shutil.copyfile(source, partial)
        elif name == "snap-runc":
            partial.write_text('#!/bin/sh\nexec runc "$@"\n')  # plain runc until there is a wrapper
        else:
            continue
        partial.chmod(0o755)
        partial.replace(target)


def _environment(
    instance: Instance, number: int, parts: NodeParts, folder: Path, fitted: Fittings
) -> dict[str, str]:
    binds = {"/opt/snap/src": REPOSITORY, "/opt/snap/site": parts.site, **fitted.binds}
    others = [n for n in NODE_NUMBERS if n != number]
    return {
        "PATH": os.environ.get("PATH", ENVIRONMENT["PATH"]),
        "NODE": str(folder),
        "LOWER": str(parts.root),
        "BINDS": "\n".join(f"{source} {target}" for target, source in binds.items()),
        "HOSTNAME_": f"node{number}",
        "ADDRESS": f"{instance.address(number)}/24",
        "GATEWAY": instance.gateway,
        "PEERS": "\n".join(f"{instance.pod_range(n)} {instance.address(n)}" for n in others),
        "CGROUPS": cgroups.describe_for_node(),
    }


def _serves(path: Path) -> bool:
    """Whether the runtime takes calls: its socket is there seconds before its CRI service is."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            services.RuntimeServiceStub(channel).ListPodSandbox(
                cri.ListPodSandboxRequest(), timeout=PROBE_S
            )
        except grpc.RpcError:
            return False
    return True
