"""CRI's messages to the shapes of pods.py and back; the only protobuf in this room.

Source: Kubernetes container runtime interface, runtime/v1 (protos/runtime/v1/api.proto).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

import grpc.aio
from google.protobuf.message import Message

from agent.runtimes import pods
from snap_protos.runtime.v1 import api_pb2 as api
from snap_protos.runtime.v1 import api_pb2_grpc as api_grpc

_STATES: Final = tuple(pods.ContainerState)


class Wire:
    """CRI's calls over one channel; each takes its deadline in seconds. Errors are gRPC's own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._runtime = api_grpc.RuntimeServiceStub(channel)
        self._images = api_grpc.ImageServiceStub(channel)

    async def version(self, timeout_s: float) -> pods.RuntimeVersion:
        got = await self._runtime.Version(api.VersionRequest(), timeout=timeout_s)
        return pods.RuntimeVersion(got.runtime_name, got.runtime_version, got.runtime_api_version)

    async def status(self, timeout_s: float) -> pods.RuntimeStatus:
        got = await self._runtime.Status(api.StatusRequest(verbose=True), timeout=timeout_s)
        conditions = tuple(
            pods.Condition(c.type, c.status, c.reason, c.message) for c in got.status.conditions
        )
        handlers = tuple(handler.name for handler in got.runtime_handlers)
        return pods.RuntimeStatus(conditions, handlers, _decoded(got.info))

    async def sandboxes(
        self, labels: Mapping[str, str], timeout_s: float
    ) -> tuple[pods.Sandbox, ...]:
        wanted = api.PodSandboxFilter(label_selector=dict(labels))
        request = api.ListPodSandboxRequest(filter=wanted)
        got = await self._runtime.ListPodSandbox(request, timeout=timeout_s)
        return tuple(_sandbox(item) for item in got.items)

    async def sandbox(self, sandbox_id: str, timeout_s: float) -> pods.SandboxDetail:
        request = api.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        got = await self._runtime.PodSandboxStatus(request, timeout=timeout_s)
        options = got.status.linux.namespaces.options
        return pods.SandboxDetail(
            sandbox=_sandbox(got.status),
            ip=got.status.network.ip,
            host_network=options.network == api.NODE,
            host_pid=options.pid == api.NODE,
            host_ipc=options.ipc == api.NODE,
            info=_decoded(got.info),
        )

    async def containers(
        self, labels: Mapping[str, str], sandbox_id: str, timeout_s: float
    ) -> tuple[pods.Container, ...]:
        wanted = api.ContainerFilter(label_selector=dict(labels), pod_sandbox_id=sandbox_id)
        request = api.ListContainersRequest(filter=wanted)
        got = await self._runtime.ListContainers(request, timeout=timeout_s)
        return tuple(
            _container(item, item.pod_sandbox_id, item.image_ref) for item in got.containers
        )

    async def container(self, container_id: str, timeout_s: float) -> pods.ContainerDetail:
        request = api.ContainerStatusRequest(container_id=container_id, verbose=True)
        got = await self._runtime.ContainerStatus(request, timeout=timeout_s)
        return _container_detail(got.status, _decoded(got.info))

    async def checkpoint(self, container_id: str, location: str, timeout_s: float) -> None:
        request = api.CheckpointContainerRequest(
            container_id=container_id, location=location, timeout=int(timeout_s)
        )
        await self._runtime.CheckpointContainer(request, timeout=timeout_s)

    async def run_sandbox(self, spec: pods.SandboxSpec, timeout_s: float) -> str:
        request = api.RunPodSandboxRequest(
            config=_sandbox_config(spec), runtime_handler=spec.runtime_handler
        )
        return (await self._runtime.RunPodSandbox(request, timeout=timeout_s)).pod_sandbox_id

    async def stop_sandbox(self, sandbox_id: str, timeout_s: float) -> None:
        request = api.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._runtime.StopPodSandbox(request, timeout=timeout_s)

    async def remove_sandbox(self, sandbox_id: str, timeout_s: float) -> None:
        request = api.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await self._runtime.RemovePodSandbox(request, timeout=timeout_s)

    async def create(
        self, sandbox_id: str, pod: pods.SandboxSpec, spec: pods.ContainerSpec, timeout_s: float
    ) -> str:
        request = api.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=_container_config(spec, pod),
            sandbox_config=_sandbox_config(pod),
        )
        return (await self._runtime.CreateContainer(request, timeout=timeout_s)).container_id

    async def start(self, container_id: str, timeout_s: float) -> None:
        request = api.StartContainerRequest(container_id=container_id)
        await self._runtime.StartContainer(request, timeout=timeout_s)

    async def stop(self, container_id: str, grace_s: int, timeout_s: float) -> None:
        request = api.StopContainerRequest(container_id=container_id, timeout=grace_s)
        await self._runtime.StopContainer(request, timeout=timeout_s)

    async def remove(self, container_id: str, timeout_s: float) -> None:
        request = api.RemoveContainerRequest(container_id=container_id)
        await self._runtime.RemoveContainer(request, timeout=timeout_s)

    async def exec_sync(
        self, container_id: str, argv: tuple[str, ...], timeout_s: float
    ) -> pods.ExecResult:
        request = api.ExecSyncRequest(
            container_id=container_id, cmd=argv, timeout=max(int(timeout_s), 1)
        )
        got = await self._runtime.ExecSync(request, timeout=timeout_s)
        return pods.ExecResult(got.exit_code, got.stdout, got.stderr)

    async def pull(
        self, image: str, access: pods.ImageAccess, pod: pods.SandboxSpec | None, timeout_s: float
    ) -> str:
        request = api.PullImageRequest(image=api.ImageSpec(image=image))
        if access.username:
            request.auth.username, request.auth.password = access.username, access.password
        if pod:
            request.sandbox_config.CopyFrom(_sandbox_config(pod))
        return (await self._images.PullImage(request, timeout=timeout_s)).image_ref

    async def image(self, name: str, timeout_s: float) -> pods.Image | None:
        request = api.ImageStatusRequest(image=api.ImageSpec(image=name))
        got = await self._images.ImageStatus(request, timeout=timeout_s)
        return _image(got.image) if got.HasField("image") else None

    async def images(self, timeout_s: float) -> tuple[pods.Image, ...]:
        got = await self._images.ListImages(api.ListImagesRequest(), timeout=timeout_s)
        return tuple(_image(item) for item in got.images)

    async def remove_image(self, name: str, timeout_s: float) -> None:
        request = api.RemoveImageRequest(image=api.ImageSpec(image=name))
        await self._images.RemoveImage(request, timeout=timeout_s)


def _decoded(info: Mapping[str, str]) -> dict[str, Any]:
    """The verbose answers, decoded where they are JSON; the main one (``info``) unfolded."""
    out: dict[str, Any] = {}
    for key, text in info.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if key == "info" and isinstance(value, dict):
            out.update(value)
        else:
            out[key] = value
    return out


def _sandbox(item: api.PodSandbox | api.PodSandboxStatus) -> pods.Sandbox:
    return pods.Sandbox(
        id=item.id,
        name=item.metadata.name,
        namespace=item.metadata.namespace,
        uid=item.metadata.uid,
        attempt=item.metadata.attempt,
        ready=item.state == api.SANDBOX_READY,
        created_at_ns=item.created_at,
        labels=dict(item.labels),
        annotations=dict(item.annotations),
        runtime_handler=item.runtime_handler,
    )


def _container(
    item: api.Container | api.ContainerStatus, sandbox_id: str, image_ref: str
) -> pods.Container:
    return pods.Container(
        id=item.id,
        sandbox_id=sandbox_id,
        name=item.metadata.name,
        attempt=item.metadata.attempt,
        state=_STATES[item.state] if item.state < len(_STATES) else pods.ContainerState.UNKNOWN,
        image=item.image.image,
        image_ref=image_ref,
        image_id=item.image_id,
        created_at_ns=item.created_at,
        labels=dict(item.labels),
        annotations=dict(item.annotations),
    )


def _container_detail(status: api.ContainerStatus, info: dict[str, Any]) -> pods.ContainerDetail:
    return pods.ContainerDetail(
        container=_container(status, str(info.get("sandboxID", "")), status.image_ref),
        pid=int(info.get("pid") or 0),
        started_at_ns=status.started_at,
        finished_at_ns=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        message=status.message,
        log_path=status.log_path,
        user_image=status.image.user_specified_image,
        mounts=tuple(
            pods.Mount(m.container_path, m.host_path, m.readonly, m.propagation)
            for m in status.mounts
        ),
        spec=info.get("runtimeSpec") or {},
        info=info,
        status_json=json.dumps(_go_json(status)).encode(),
    )


def _go_json(message: Message) -> dict[str, Any]:
    """``message`` as Go's encoding/json writes generated structs: proto names, enums as numbers."""
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            out[field.name] = dict(value)
        elif field.is_repeated:
            nested = field.message_type is not None
            out[field.name] = [_go_json(item) if nested else item for item in value]
        else:
            out[field.name] = _go_json(value) if field.message_type else value
    return out


def _image(item: api.Image) -> pods.Image:
    return pods.Image(item.id, tuple(item.repo_tags), tuple(item.repo_digests), item.size)


def _sandbox_config(spec: pods.SandboxSpec) -> api.PodSandboxConfig:
    options = api.NamespaceOption(
        network=api.NODE if spec.host_network else api.POD,
        pid=api.NODE if spec.host_pid else api.POD if spec.share_processes else api.CONTAINER,
    )
    labels = {
        pods.LABEL_POD_NAME: spec.name,
        pods.LABEL_POD_NAMESPACE: spec.namespace,
        pods.LABEL_POD_UID: spec.uid,
    }
    return api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(
            name=spec.name, uid=spec.uid, namespace=spec.namespace, attempt=spec.attempt
        ),
        hostname=spec.hostname or spec.name,
        log_directory=spec.log_directory,
        labels={**labels, **spec.labels},
        annotations=spec.annotations,
        linux=api.LinuxPodSandboxConfig(
            cgroup_parent=spec.cgroup_parent,
            security_context=api.LinuxSandboxSecurityContext(
                namespace_options=options, seccomp=_seccomp("unconfined")
            ),
        ),
    )


def _container_config(spec: pods.ContainerSpec, pod: pods.SandboxSpec) -> api.ContainerConfig:
    sandbox = _sandbox_config(pod)
    labels = {**dict(sandbox.labels), pods.LABEL_CONTAINER_NAME: spec.name}
    restarts = {"io.kubernetes.container.restartCount": str(spec.attempt)}
    config = api.ContainerConfig(
        metadata=api.ContainerMetadata(name=spec.name, attempt=spec.attempt),
        image=api.ImageSpec(image=spec.image, user_specified_image=spec.image),
        command=spec.command,
        args=spec.args,
        envs=[api.KeyValue(key=k, value=v.encode()) for k, v in spec.env.items()],
        mounts=[
            api.Mount(
                container_path=m.container_path,
                host_path=m.host_path,
                readonly=m.read_only,
                propagation=cast("api.MountPropagation.ValueType", m.propagation),
            )
            for m in spec.mounts
        ],
        labels={**labels, **spec.labels},
        annotations={**restarts, **spec.annotations},
        log_path=spec.log_name,
        tty=spec.tty,
        stdin=spec.stdin,
    )
    config.linux.resources.memory_limit_in_bytes = spec.memory_limit_bytes
    config.linux.security_context.CopyFrom(_security(spec, sandbox))
    return config


def _security(
    spec: pods.ContainerSpec, sandbox: api.PodSandboxConfig
) -> api.LinuxContainerSecurityContext:
    context = api.LinuxContainerSecurityContext(
        capabilities=api.Capability(
            add_capabilities=spec.add_capabilities, drop_capabilities=spec.drop_capabilities
        ),
        privileged=spec.privileged,
        namespace_options=sandbox.linux.security_context.namespace_options,
        readonly_rootfs=spec.read_only_root,
        no_new_privs=spec.no_new_privileges,
        seccomp=_seccomp(spec.seccomp),
    )
    if spec.user is not None:
        context.run_as_user.value = spec.user
    if spec.group is not None:
        context.run_as_group.value = spec.group
    return context


def _seccomp(profile: str) -> api.SecurityProfile:
    by_runtime = profile == "runtime"
    kind = api.SecurityProfile.RuntimeDefault if by_runtime else api.SecurityProfile.Unconfined
    return api.SecurityProfile(profile_type=kind)
