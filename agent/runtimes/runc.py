"""The OCI runtime of the node's containers, runc or crun, asked by its command line.

Source: runc(8) and crun(1); both know state, pause, resume, ps, list and ``--root``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from agent import errors
from agent.runtimes import commands
from agent.runtimes.commands import Completed, Host

ROOTS: Final = (  # Source: defaults of containerd's shim (namespace k8s.io), CRI-O, runc and crun
    "/run/containerd/runc/k8s.io",
    "/run/runc",
    "/run/crun",
)
_STATE_FILES: Final = {"runc": "state.json", "crun": "status"}
_CALL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class State:
    """One container to its OCI runtime; ``status`` is created, running, paused or stopped."""

    id: str
    status: str
    pid: int
    bundle: str
    root_path: str
    annotations: dict[str, str]


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """runc or crun with one state directory."""

    host: Host
    binary: str
    root: str

    async def state(self, container_id: str) -> State:
        """Where ``container_id`` is.

        Raises:
            NotFound: the runtime does not know it.
        """
        done = await self._call("state", container_id)
        if done.status != 0:
            message = f"{self.binary} knows no container {container_id[:12]}."
            raise errors.NotFound(
                message, code=errors.CONTAINER_NOT_FOUND, details=done.stderr_tail
            )
        return _state(_object(done))

    async def pause(self, container_id: str) -> None:
        """Freeze a container."""
        done = await self._call("pause", container_id)
        done.check(f"Container {container_id[:12]} could not be frozen.")

    async def resume(self, container_id: str) -> None:
        """Thaw a container.

        Raises:
            Broken: it stays frozen; a person must look.
        """
        done = await self._call("resume", container_id)
        if done.status != 0 and (await self.state(container_id)).status == "paused":
            message = f"Container {container_id[:12]} stays frozen; look at it on the node."
            raise errors.Broken(message, details=done.stderr_tail)

    async def pids(self, container_id: str) -> tuple[int, ...]:
        """The container's processes, in the node's pid namespace."""
        done = await self._call("ps", "--format", "json", container_id)
        done.check(f"The processes of container {container_id[:12]} could not be listed.")
        return tuple(json.loads(done.stdout or b"[]") or ())

    async def containers(self) -> tuple[State, ...]:
        """All containers of this state directory."""
        if not self.host.path(self.root).is_dir():
            return ()
        done = await self._call("list", "--format", "json")
        done.check(f"{self.binary} could not list its containers.")
        return tuple(_state(item) for item in json.loads(done.stdout or b"[]") or ())

    async def _call(self, *argv: str) -> Completed:
        return await commands.run(
            self.host, [self.binary, "--root", self.root, *argv], timeout_s=_CALL_S
        )


async def version(host: Host, binary: str = "runc") -> str:
    """The version of ``binary`` on the node; empty when it is not there."""
    try:
        done = await commands.run(host, [binary, "--version"], timeout_s=_CALL_S)
    except errors.CommandFailed:
        return ""
    words = done.text.split("\n")[0].split()
    return words[-1] if done.status == 0 and words else ""


def find(host: Host, container_id: str) -> OciRuntime | None:
    """The OCI runtime whose state holds ``container_id``; None: none that we know."""
    for root in ROOTS:
        for binary, file in _STATE_FILES.items():
            if host.path(f"{root}/{container_id}/{file}").is_file():
                return OciRuntime(host, binary, root)
    return None


def known(host: Host) -> tuple[OciRuntime, ...]:
    """Every runtime with a state directory on this node."""
    found = []
    for root in ROOTS:
        for binary, file in _STATE_FILES.items():
            if any(host.path(root).glob(f"*/{file}")):
                found.append(OciRuntime(host, binary, root))
    return tuple(found)


def _object(done: Completed) -> dict[str, Any]:
    value = json.loads(done.stdout)
    return value if isinstance(value, dict) else {}


def _state(item: dict[str, Any]) -> State:
    return State(
        id=item.get("id", ""),
        status=item.get("status", ""),
        pid=int(item.get("pid") or 0),
        bundle=item.get("bundle", ""),
        root_path=item.get("rootfs", ""),
        annotations=item.get("annotations") or {},
    )
