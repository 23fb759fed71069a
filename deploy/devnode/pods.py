"""Pods on a node, as a kubelet would make them: one container each, over CRI."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import grpc

from deploy.devnode.node import Node
from snap_protos.runtime.v1 import api_pb2 as cri
from snap_protos.runtime.v1 import api_pb2_grpc as services

MESSAGE_BYTES: Final = 16 << 20
CALL_S: Final = 120.0
STOP_TRIES: Final = 4
STOP_AGAIN_S: Final = 0.5
# a runtime that was started anew a moment ago is waited for, within the call's deadline
WAITING: Final = json.dumps({"methodConfig": [{"name": [{}], "waitForReady": True}]})


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the node inside the container; ``follows``: what the node mounts there later, too."""

    host_path: str
    container_path: str
    readonly: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What to run.

    Attributes:
        image: repository of the base registry ("counter"), or a whole image name.
        command, args: the image's own where empty.
        handler: runtime handler, "" (runc) or "snap".
        annotations: of the pod.
        linux: CRI's LinuxContainerConfig fields for the container (a message), None for defaults.
        sandbox_linux: the same for the sandbox; its cgroup parent is filled in.
        auth: user and password to pull with.
    """

    name: str
    image: str
    namespace: str = "default"
    container: str = "app"
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    container_annotations: Mapping[str, str] = field(default_factory=dict)
    handler: str = ""
    mounts: tuple[Mount, ...] = ()
    attempt: int = 0
    uid: str = ""
    tty: bool = False
    linux: cri.LinuxContainerConfig | None = None
    sandbox_linux: cri.LinuxPodSandboxConfig | None = None
    auth: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that was started. ``timings_ms`` tells how long each call took (pull, sandbox, create, start)."""

    node: Node
    spec: PodSpec
    uid: str
    sandbox_id: str
    container_id: str
    log: Path
    timings_ms: Mapping[str, float]

    def lines(self) -> list[str]:
        """What the container wrote so far, without CRI's own columns."""
        return [line.split(" ", 3)[3] for line in self.raw_lines() if line.count(" ") >= 3]

    def raw_lines(self) -> list[str]:
        """Its log as it is, the line that is being written left out."""
        try:
            text = self.log.read_text(errors="replace")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()


def _runtime_path(spec: PodSpec, uid: str) -> str:
    return f"/var/log/pods/{spec.namespace}_{spec.name}_{uid}"


class Pods:
    """The CRI of one node. Calls block; every one has a deadline.

    Raises (any method): grpc.RpcError with the runtime's own words.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.service_config", WAITING),
        ]
        self._channel = grpc.insecure_channel(f"unix:{node.cri_socket}", options=options)
        self.runtime = services.RuntimeServiceStub(self._channel)
        self.images = services.ImageServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection; pods stay."""
        self._channel.close()

    def image_name(self, image: str) -> str:
        """``image`` in full: a bare repository is one of the base registry's."""
        if "/" in image:
            return image
        name = image if ":" in image or "@" in image else f"{image}:latest"
        return f"{self.node.instance.base_registry}/{name}"

    def pull(self, image: str, auth: tuple[str, str] | None = None) -> str:
        """Pull ``image`` unless it is there; its reference in the runtime's words."""
        spec = cri.ImageSpec(image=self.image_name(image))
        known = self.images.ImageStatus(cri.ImageStatusRequest(image=spec), timeout=CALL_S)
        if known.HasField("image") and known.image.id:
            return known.image.id
        login = cri.AuthConfig(username=auth[0], password=auth[1]) if auth else None
        request = cri.PullImageRequest(image=spec, auth=login)
        return self.images.PullImage(request, timeout=CALL_S).image_ref

    def run(self, spec: PodSpec) -> Pod:
        """Start a pod with one container; what was begun is removed if it fails."""
        uid = spec.uid or str(uuid.uuid4())
        timings: dict[str, float] = {}
        with _timed(timings, "pull"):
            self.pull(spec.image, spec.auth)
        config = self._sandbox(spec, uid)
        with _timed(timings, "sandbox"):
            asked = cri.RunPodSandboxRequest(config=config, runtime_handler=spec.handler)
            sandbox_id = self.runtime.RunPodSandbox(asked, timeout=CALL_S).pod_sandbox_id
        try:
            container_id = self.add_container(spec, sandbox_id, config, timings)
        except BaseException:
            with contextlib.suppress(grpc.RpcError):  # what went wrong first is what counts
                self._remove_sandbox(sandbox_id)
            raise
        log = self.node.host_path(_runtime_path(spec, uid)) / f"{spec.container}/{spec.attempt}.log"
        return Pod(self.node, spec, uid, sandbox_id, container_id, log, timings)

    def add_container(
        self,
        spec: PodSpec,
        sandbox_id: str,
        sandbox: cri.PodSandboxConfig,
        timings: dict[str, float] | None = None,
    ) -> str:
        """Create and start a container of ``spec`` in a sandbox; its id."""
        taken = {} if timings is None else timings
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox_id, config=self._container(spec), sandbox_config=sandbox
        )
        with _timed(taken, "create"):
            container_id = self.runtime.CreateContainer(request, timeout=CALL_S).container_id
        with _timed(taken, "start"):
            start = cri.StartContainerRequest(container_id=container_id)
            self.runtime.StartContainer(start, timeout=CALL_S)
        return container_id

    def restart(self, pod: Pod) -> Pod:
        """Stop the container and start the next one in the same sandbox, as a kubelet does after a crash."""
        self.stop_container(pod.container_id, 0)
        again = replace(pod.spec, attempt=pod.spec.attempt + 1)
        sandbox = self._sandbox(again, pod.uid)
        container_id = self.add_container(again, pod.sandbox_id, sandbox)
        log = pod.log.with_name(f"{again.attempt}.log")
        return Pod(pod.node, again, pod.uid, pod.sandbox_id, container_id, log, {})

    def stop_container(self, container_id: str, grace_s: int = 2) -> None:
        """Stop one container."""
        request = cri.StopContainerRequest(container_id=container_id, timeout=grace_s)
        self.runtime.StopContainer(request, timeout=CALL_S)

    def remove(self, pod: Pod) -> None:
        """Stop and remove a pod; fine if it is gone already."""
        self._remove_sandbox(pod.sandbox_id)

    def remove_all(self) -> None:
        """Remove every pod of the node."""
        for sandbox in self.runtime.ListPodSandbox(
            cri.ListPodSandboxRequest(), timeout=CALL_S
        ).items:
            self._remove_sandbox(sandbox.id)

    def _remove_sandbox(self, sandbox_id: str) -> None:
        self._stop_sandbox(sandbox_id)
        remove = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        self.runtime.RemovePodSandbox(remove, timeout=CALL_S)

    def _stop_sandbox(self, sandbox_id: str) -> None:
        """Stop it as the kubelet does: again, where a container that ended meanwhile made it fail."""
        stop = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        for left in reversed(range(STOP_TRIES)):
            try:
                self.runtime.StopPodSandbox(stop, timeout=CALL_S)
                return
            except grpc.RpcError as failure:
                if not left or failure.code() is not grpc.StatusCode.UNKNOWN:
                    raise
                time.sleep(STOP_AGAIN_S)

    def exec(self, pod: Pod, *argv: str, timeout_s: int = 60) -> str:
        """What ``argv`` wrote to stdout inside the container.

        Raises:
            RuntimeError: it failed.
        """
        request = cri.ExecSyncRequest(container_id=pod.container_id, cmd=argv, timeout=timeout_s)
        done = self.runtime.ExecSync(request, timeout=timeout_s + 10)
        if done.exit_code:
            raise RuntimeError(f"{argv[0]} ended with {done.exit_code}: {done.stderr.decode()}")
        return done.stdout.decode()

    def status(self, pod: Pod) -> cri.ContainerStatus:
        """The container's status."""
        request = cri.ContainerStatusRequest(container_id=pod.container_id)
        return self.runtime.ContainerStatus(request, timeout=CALL_S).status

    def info(self, pod: Pod) -> dict[str, Any]:
        """containerd's verbose word on the container: pid, runtimeSpec, snapshotKey …"""
        request = cri.ContainerStatusRequest(container_id=pod.container_id, verbose=True)
        answer = self.runtime.ContainerStatus(request, timeout=CALL_S)
        info: dict[str, Any] = json.loads(answer.info["info"])
        return info

    def is_running(self, pod: Pod) -> bool:
        """Whether the runtime calls the container running."""
        return self.status(pod).state == cri.CONTAINER_RUNNING

    def _sandbox(self, spec: PodSpec, uid: str) -> cri.PodSandboxConfig:
        linux = cri.LinuxPodSandboxConfig()
        if spec.sandbox_linux is not None:
            linux.CopyFrom(spec.sandbox_linux)
        linux.cgroup_parent = linux.cgroup_parent or f"{self.node.pod_cgroup}/pod{uid}"
        if not linux.security_context.HasField("namespace_options"):
            linux.security_context.namespace_options.pid = cri.CONTAINER  # a kubelet's default
        own_name = linux.security_context.namespace_options.network != cri.NODE
        metadata = cri.PodSandboxMetadata(name=spec.name, uid=uid, namespace=spec.namespace)
        labels = {
            **spec.labels,
            "io.kubernetes.pod.name": spec.name,
            "io.kubernetes.pod.uid": uid,
            "io.kubernetes.pod.namespace": spec.namespace,
        }
        return cri.PodSandboxConfig(
            metadata=metadata,
            hostname=spec.name if own_name else "",
            log_directory=_runtime_path(spec, uid),
            labels=labels,
            annotations=dict(spec.annotations),
            linux=linux,
        )

    def _container(self, spec: PodSpec) -> cri.ContainerConfig:
        mounts = [
            cri.Mount(
                host_path=m.host_path,
                container_path=m.container_path,
                readonly=m.readonly,
                propagation=cri.PROPAGATION_HOST_TO_CONTAINER
                if m.follows
                else cri.PROPAGATION_PRIVATE,
            )
            for m in spec.mounts
        ]
        labels = {
            "io.kubernetes.container.name": spec.container,
            "io.kubernetes.pod.name": spec.name,
            "io.kubernetes.pod.namespace": spec.namespace,
        }
        linux = cri.LinuxContainerConfig()
        if spec.linux is not None:
            linux.CopyFrom(spec.linux)
        if not linux.security_context.HasField("namespace_options"):
            linux.security_context.namespace_options.pid = cri.CONTAINER
        annotations = {
            "io.kubernetes.container.restartCount": str(spec.attempt),
            **spec.container_annotations,
        }
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=spec.container, attempt=spec.attempt),
            image=cri.ImageSpec(image=self.image_name(spec.image)),
            command=spec.command,
            args=spec.args,
            envs=[cri.KeyValue(key=k, value=v.encode()) for k, v in spec.env.items()],
            mounts=mounts,
            labels=labels,
            annotations=annotations,
            tty=spec.tty,
            stdin=spec.tty,
            log_path=f"{spec.container}/{spec.attempt}.log",
            linux=linux,
        )


@contextlib.contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    timings[name] = (time.monotonic() - began) * 1000
