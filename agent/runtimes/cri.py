"""The container runtime, asked over CRI on its unix socket."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
import grpc.aio

from agent import errors
from agent.runtimes import cri_wire, pods
from agent.runtimes.commands import Host

SOCKETS: Final = (  # Source: defaults of containerd, CRI-O, k3s and cri-dockerd
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
)
CALL_S: Final = 10.0
SLOW_S: Final = 120.0  # pulls, sandboxes: network set-up and registries
_T = TypeVar("_T")
_NONE: Final[Mapping[str, str]] = {}


def find_socket(host: Host, endpoint: str = "") -> str:
    """The path on the node of the runtime's socket: ``endpoint`` if given, else the first there is.

    Raises:
        Refused: there is none.
    """
    named = endpoint.removeprefix("unix://")
    for path in (named,) if named else SOCKETS:
        if host.path(path).is_socket():
            return path
    where = named or ", ".join(SOCKETS)
    raise errors.Refused(
        f"No container runtime answers here: {where} is no socket; set SNAP_CRI_ENDPOINT."
    )


class Client:
    """CRI's calls, each within a deadline. Use as an async context manager, or ``close`` it.

    Every method raises NotFound (what was named is not there), Retryable (the runtime is away or
    slow), Refused (it doesn't do this, or not with these arguments), CommandFailed (it failed).
    """

    def __init__(self, host: Host, socket: str) -> None:
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0)]
        # no authority of its own: Go's servers refuse the escaped path that would be sent as one
        options.append(("grpc.default_authority", "localhost"))  # type: ignore[arg-type]
        self._channel = grpc.aio.insecure_channel(f"unix://{host.path(socket)}", options)
        self._wire = cri_wire.Wire(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop the connection."""
        await self._channel.close()

    async def version(self) -> pods.RuntimeVersion:
        """Name and version of the runtime."""
        return await _mapped("Version", self._wire.version(CALL_S))

    async def status(self) -> pods.RuntimeStatus:
        """Conditions, handlers and verbose configuration of the runtime."""
        return await _mapped("Status", self._wire.status(CALL_S))

    async def sandboxes(self, labels: Mapping[str, str] = _NONE) -> tuple[pods.Sandbox, ...]:
        """Pod sandboxes that carry all of ``labels``, whatever their state."""
        return await _mapped("ListPodSandbox", self._wire.sandboxes(labels, CALL_S))

    async def sandbox(self, sandbox_id: str) -> pods.SandboxDetail:
        """One sandbox in full."""
        return await _mapped("PodSandboxStatus", self._wire.sandbox(sandbox_id, CALL_S))

    async def containers(
        self, labels: Mapping[str, str] = _NONE, sandbox_id: str = ""
    ) -> tuple[pods.Container, ...]:
        """Containers that carry all of ``labels``, whatever their state."""
        return await _mapped("ListContainers", self._wire.containers(labels, sandbox_id, CALL_S))

    async def container(self, container_id: str) -> pods.ContainerDetail:
        """One container in full, with its OCI configuration and pid."""
        return await _mapped("ContainerStatus", self._wire.container(container_id, CALL_S))

    async def checkpoint_container(
        self, container_id: str, location: str, timeout_s: float
    ) -> None:
        """Have the runtime write a checkpoint archive to ``location`` on the node."""
        call = self._wire.checkpoint(container_id, location, timeout_s)
        await _mapped("CheckpointContainer", call)

    async def run_sandbox(self, spec: pods.SandboxSpec) -> str:
        """Make a pod sandbox; returns its id."""
        return await _mapped("RunPodSandbox", self._wire.run_sandbox(spec, SLOW_S))

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox and all in it."""
        await _mapped("StopPodSandbox", self._wire.stop_sandbox(sandbox_id, SLOW_S))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove a sandbox and all in it."""
        await _mapped("RemovePodSandbox", self._wire.remove_sandbox(sandbox_id, SLOW_S))

    async def create(self, sandbox_id: str, pod: pods.SandboxSpec, spec: pods.ContainerSpec) -> str:
        """Make a container in a sandbox that was made from ``pod``; returns its id."""
        call = self._wire.create(sandbox_id, pod, spec, SLOW_S)
        return await _mapped("CreateContainer", call)

    async def start(self, container_id: str) -> None:
        """Start a created container."""
        await _mapped("StartContainer", self._wire.start(container_id, SLOW_S))

    async def stop(self, container_id: str, grace_s: int = 0) -> None:
        """Stop a container, by SIGKILL after ``grace_s``."""
        await _mapped("StopContainer", self._wire.stop(container_id, grace_s, grace_s + CALL_S))

    async def remove(self, container_id: str) -> None:
        """Remove a container."""
        await _mapped("RemoveContainer", self._wire.remove(container_id, SLOW_S))

    async def exec_sync(
        self, container_id: str, argv: tuple[str, ...], timeout_s: float = CALL_S
    ) -> pods.ExecResult:
        """Run ``argv`` in a container and wait for it."""
        return await _mapped("ExecSync", self._wire.exec_sync(container_id, argv, timeout_s))

    async def pull(
        self,
        image: str,
        access: pods.ImageAccess | None = None,
        pod: pods.SandboxSpec | None = None,
    ) -> str:
        """Pull an image; returns the reference that the runtime knows it by."""
        call = self._wire.pull(image, access or pods.ImageAccess(), pod, SLOW_S)
        return await _mapped("PullImage", call)

    async def image(self, name: str) -> pods.Image | None:
        """One image of the node, by any of its names; None: not there."""
        return await _mapped("ImageStatus", self._wire.image(name, CALL_S))

    async def images(self) -> tuple[pods.Image, ...]:
        """All images of the node."""
        return await _mapped("ListImages", self._wire.images(CALL_S))

    async def remove_image(self, name: str) -> None:
        """Remove an image; not being there is fine."""
        await _mapped("RemoveImage", self._wire.remove_image(name, SLOW_S))


async def _mapped(method: str, call: Awaitable[_T]) -> _T:
    """``call``, with gRPC's errors as ours."""
    try:
        return await call
    except grpc.aio.AioRpcError as cause:
        raise error_of(method, cause.code(), cause.details() or "") from cause


def error_of(method: str, code: grpc.StatusCode, details: str) -> errors.SnapError:
    """The error of our tree for a failed call; the one table of this adapter."""
    match code:
        case grpc.StatusCode.NOT_FOUND:
            message = "The container runtime does not know what was asked for."
            return errors.NotFound(message, code=errors.CONTAINER_NOT_FOUND, details=details)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            message = "The container runtime does not answer; is it running?"
            return errors.Retryable(message, after_s=2.0, details=details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"The container runtime did not answer {method} in time."
            return errors.Retryable(message, after_s=5.0, code=errors.TIMEOUT, details=details)
        case grpc.StatusCode.UNIMPLEMENTED:
            message = f"This container runtime does not offer {method}; use another engine."
            return errors.Refused(message, details=details)
        case (
            grpc.StatusCode.INVALID_ARGUMENT
            | grpc.StatusCode.FAILED_PRECONDITION
            | grpc.StatusCode.ALREADY_EXISTS
            | grpc.StatusCode.OUT_OF_RANGE
        ):
            return errors.Refused(f"The container runtime refused {method}.", details=details)
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            message = "The container runtime's socket refused the agent; it must run as root."
            return errors.Broken(message, details=details)
    status = code.value[0] if isinstance(code.value, tuple) else None
    return errors.CommandFailed(
        f"The container runtime failed at {method}.",
        argv=("cri", method),
        status=status,
        log_tail=details,
    )
