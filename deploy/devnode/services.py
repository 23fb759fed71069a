"""The two programs as processes of an instance: the control plane on this machine, an agent inside a node.

They can be stopped (SIGTERM), killed (SIGKILL) and started again on the data they left.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.devnode import cgroups, processes
from deploy.devnode.instance import Instance
from deploy.devnode.node import ENVIRONMENT, Node
from deploy.devnode.ports import free_port
from deploy.devnode.processes import Launch
from deploy.devnode.rest import Rest
from deploy.devnode.rootfs import REPOSITORY

START_S: Final = 60.0  # a machine may be busy with much else
FREE_PERCENT: Final = "1"  # the machine's disk is not the node's alone
STOP_S: Final = 30.0  # both programs promise a clean exit within 10 s; a busy machine adds to it


@dataclass
class _Service:
    """A started program: the process that was started and the pid behind it.

    Attributes:
        restarts: whether it is started again when it ends or is killed; ``pid`` is then of what starts it.
    """

    log: Path
    restarts: bool = field(default=False, init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    pid: int = field(default=0, init=False)

    @property
    def is_running(self) -> bool:
        """Whether it is there."""
        return self.process is not None and self.process.poll() is None

    def argv(self, *program: str) -> list[str]:
        """How ``program`` is started."""
        return processes.again(*program) if self.restarts else list(program)

    def stop(self, *, timeout_s: float = STOP_S) -> int | None:
        """Ask it to end; its exit status, None if it had to be killed or was not there."""
        if self.process is None:
            return None
        return processes.end(self.process, self.pid, timeout_s=timeout_s)

    def kill(self) -> None:
        """``kill -9`` it."""
        if self.process is not None:
            processes.kill(self.process, self.pid)

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): the network is silent, its connections stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def proceed(self) -> None:
        """Undo ``pause``."""
        os.kill(self.pid, signal.SIGCONT)
        if self.process is not None:  # nsenter stops with its child, and could not reap it later
            os.kill(self.process.pid, signal.SIGCONT)


@dataclass
class ControlPlane(_Service):
    """The control plane of an instance. ``data`` survives stop and kill."""

    instance: Instance
    data: Path
    http_port: int
    grpc_port: int
    admin_password: str = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where REST is."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        """What agents dial."""
        return f"{self.instance.gateway}:{self.grpc_port}"

    def start(self) -> None:
        """Start it and wait for ``/ready``.

        Raises:
            processes.NotReady: it did not come up; the message ends with its log.
        """
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        password_file = self.data.with_name(f"{self.data.name}-admin-password")
        password_file.touch(mode=0o600)
        password_file.write_text(self.admin_password)
        env = {
            **_inherited(),
            "SNAP_HTTP_ADDR": f"127.0.0.1:{self.http_port}",
            "SNAP_GRPC_ADDR": self.grpc_address,
            "SNAP_HOOK_ADDR": f"127.0.0.1:{free_port()}",
            "SNAP_TLS_SANS": self.instance.gateway,
            "SNAP_DATA_DIR": str(self.data),
            "SNAP_ADMIN_PASSWORD_FILE": str(password_file),
            "SNAP_RATE_LIMIT_USER": "0",
            "SNAP_RATE_LIMIT_ANONYMOUS": "0",
            "PYTHONPATH": str(REPOSITORY),
            **self.environment,
        }
        argv = self.argv(sys.executable, "-m", "controlplane")
        self.process = processes.start(
            Launch(argv, f"{self.instance.cgroup}/controlplane", self.log, env)
        )
        self.pid = self.process.pid
        processes.wait_until(
            lambda: Rest(self.url).answers("/ready"),
            "the control plane",
            timeout_s=START_S,
            log=self.log,
            alive=lambda: self.is_running,
        )

    def login(self) -> Rest:
        """REST as the administrator."""
        rest = Rest(self.url)
        rest.login("admin", self.admin_password)
        return rest


def _inherited() -> dict[str, str]:
    """Our environment without settings meant for other runs of the programs."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SNAP_")}


@dataclass
class Agent(_Service):
    """The agent of a node. Its data (/var/lib/snap) survives stop and kill."""

    node: Node
    control_plane: ControlPlane
    cluster: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def token_file(self) -> Path:
        """Its join token, once it is enrolled; the CA of its control plane lies beside it."""
        return self.node.host_path(f"{self._settings}/token")

    @property
    def _settings(self) -> str:
        return f"/etc/snap/{self.control_plane.data.name}"

    @property
    def memory_folder(self) -> Path:
        """The cgroup folder that accounts its memory."""
        return cgroups.memory_folder(self.node.cgroup("agent"))

    def enrol(self, rest: Rest) -> None:
        """Get a join token and the CA from the control plane and put them on the node."""
        answer = rest.post(f"/config/clusters/{self.cluster}/agent-token")
        self.token_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(str(answer["token"]))
        (self.token_file.parent / "ca.crt").write_text(str(answer["ca_pem"]))

    def start(self) -> None:
        """Start it; ``World.wait_connected`` waits for its first report."""
        env = {
            **ENVIRONMENT,
            "SNAP_CONTROL_PLANE": self.control_plane.grpc_address,
            "SNAP_CLUSTER_NAME": self.cluster,
            "SNAP_NODE_NAME": self.node.name,
            "SNAP_AGENT_TOKEN_FILE": f"{self._settings}/token",
            "SNAP_CA_FILE": f"{self._settings}/ca.crt",
            "SNAP_DISK_FREE_PERCENT": FREE_PERCENT,
            **self.environment,
        }
        argv = self.node.argv(self.argv("python3", "-m", "agent"), service="agent")
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                env=env,
            )
        self.pid = processes.only_child(self.process, log=self.log)

    def restores(self) -> list[dict[str, Any]]:
        """What became of the containers that asked this agent for a restore, oldest first.

        A line that is being written is not one yet.
        """
        try:
            text = self.node.host_path("/var/lib/snap/restores.log").read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines() if line]

    def probe(self) -> dict[str, object]:
        """What ``snap-agent probe --json`` says on the node."""
        done = self.node.run(["python3", "-m", "agent", "probe", "--json"], check=False)
        found: dict[str, object] = json.loads(done.stdout)
        return found


def new_password() -> str:
    """A password for one instance."""
    return secrets.token_urlsafe(12)
