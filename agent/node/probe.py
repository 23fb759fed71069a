"""Finding out what the node has, by running its tools and asking its container runtime."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Protocol

from agent import errors
from agent.node import machine, readiness
from agent.node.facts import NodeFacts, Readiness
from agent.runtimes import commands, crio, criu, daemons, pods, runc
from agent.runtimes.commands import Host
from agent.runtimes.kubelet_errors import Gate

OCI_RUNTIMES: Final = ("runc", "crun")
_CALL_S: Final = 10.0


class Runtime(Protocol):
    """The container runtime, as far as the probe asks it."""

    async def version(self) -> pods.RuntimeVersion:
        """Its name and version."""

    async def status(self) -> pods.RuntimeStatus:
        """Its conditions and handlers."""


class Kubelet(Protocol):
    """The kubelet, as far as the probe asks it."""

    async def gate(self) -> tuple[Gate, str]:
        """Whether it takes checkpoints, and its own words."""


@dataclass(frozen=True, slots=True)
class _RuntimeAnswer:
    problem: str = ""
    name: str = ""
    version: str = ""
    handlers: tuple[str, ...] = ()
    oci_runtime: str = ""
    own_restore: bool | None = None
    own_checkpoint: bool | None = None


async def take(host: Host, runtime: Runtime | None, asked: Kubelet | None) -> Readiness:
    """Probe the node; takes a second or so, and never fails: what is missing becomes a reason.

    Args:
        host: the node.
        runtime: its container runtime; None: no socket was found.
        asked: its kubelet; None: it is not to be asked.
    """
    about = await asyncio.to_thread(machine.read, host)
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(_ask(host, runtime), name="probe: runtime")
        gate = group.create_task(_gate(asked), name="probe: checkpoint gate")
        versions = {
            name: group.create_task(_quietly(runc.version(host, name)), name=f"probe: {name}")
            for name in OCI_RUNTIMES
        }
        criu_version = group.create_task(_quietly(criu.version(host)), name="probe: criu")
        kubelet = group.create_task(_quietly(_kubelet_version(host)), name="probe: kubelet")
    problem, features = "", tuple[str, ...]()
    if criu_version.result():
        problem = await _quietly(criu.check(host), "criu check did not end")
        features = await _features(host)
    oci_runtime = _oci_runtime(answer.result(), {n: v.result() for n, v in versions.items()})
    facts = NodeFacts(
        os=about.os,
        kernel=about.kernel,
        architecture=about.architecture,
        runtime=answer.result().name,
        runtime_version=answer.result().version,
        oci_runtime=oci_runtime,
        oci_runtime_version=versions[oci_runtime].result() if oci_runtime else "",
        runc_version=versions["runc"].result(),
        criu_version=criu_version.result(),
        kubelet_version=kubelet.result(),
        cgroup_version=about.cgroup_version,
        criu_features=features,
        cpu_features=about.cpu_features,
    )
    found = readiness.Findings(
        runtime_problem=answer.result().problem,
        criu_problem=problem,
        handlers=answer.result().handlers,
        wrapper=os.access(host.path(readiness.WRAPPER), os.X_OK),
        is_root=os.geteuid() == 0,
        gate=gate.result()[0],
        gate_said=gate.result()[1],
        own_restore=answer.result().own_restore,
        own_checkpoint=answer.result().own_checkpoint,
    )
    return readiness.judge(facts, found)


async def _gate(asked: Kubelet | None) -> tuple[Gate, str]:
    return await asked.gate() if asked else (Gate.ABSENT, "")


async def _ask(host: Host, runtime: Runtime | None) -> _RuntimeAnswer:
    if runtime is None:
        return _RuntimeAnswer(problem="No container runtime's socket is on this node.")
    try:
        version, status = await runtime.version(), await runtime.status()
    except errors.SnapError as failure:
        return _RuntimeAnswer(problem=failure.message)
    down = [c for c in status.conditions if c.type == "RuntimeReady" and not c.ok]
    return _RuntimeAnswer(
        problem=f"The container runtime is not ready: {down[0].message}." if down else "",
        name=version.name,
        version=version.version,
        handlers=status.handlers,
        oci_runtime=_configured(status.info),
        own_restore=_restores_by_create(status.info),
        own_checkpoint=await crio.checkpoints(host) if version.name == "cri-o" else None,
    )


def _restores_by_create(info: Mapping[str, Any]) -> bool | None:
    """Whether containerd was told to restore images when it creates containers; None: it does not say.

    Source: containerd's release notes of 2.2.7 and 2.3.4, enable_experimental_restore_via_create.
    """
    for key, value in _object(info.get("config")).items():
        if key.replace("_", "").lower() == "enableexperimentalrestoreviacreate":
            return bool(value)
    return None


def _configured(info: Mapping[str, Any]) -> str:
    """The OCI runtime that containerd uses by default; "" where the status does not tell.

    Source: the verbose answer of containerd's CRI Status (``info["config"]``).
    """
    settings = _object(_object(info.get("config")).get("containerd"))
    name = settings.get("defaultRuntimeName") or "runc"
    options = _object(_object(_object(settings.get("runtimes")).get(name)).get("options"))
    return PurePosixPath(str(options.get("BinaryName") or "")).name


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _oci_runtime(answer: _RuntimeAnswer, versions: Mapping[str, str]) -> str:
    """The OCI runtime to work with: the configured one if it is a known one, else the first there."""
    if versions.get(answer.oci_runtime):
        return answer.oci_runtime
    return next((name for name, version in versions.items() if version), "")


async def _features(host: Host) -> tuple[str, ...]:
    try:
        return await criu.features(host)
    except errors.SnapError:
        return ()


async def _kubelet_version(host: Host) -> str:
    """Of the kubelet that runs, wherever its program lies, else of the one that is installed."""
    running = await asyncio.to_thread(daemons.find, host, "kubelet")
    program = f"/proc/{running.pid}/exe" if running else "kubelet"
    done = await commands.run(host, [program, "--version"], timeout_s=_CALL_S)
    return done.text.removeprefix("Kubernetes v") if done.status == 0 else ""


async def _quietly(asking: Any, otherwise: str = "") -> str:
    """What ``asking`` says, or ``otherwise`` when the tool is not there or does not end."""
    try:
        return str(await asking)
    except errors.SnapError:
        return otherwise
