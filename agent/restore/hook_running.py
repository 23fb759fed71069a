"""Running the hook of a container that was just let go, with nothing but the container's own rights.

A command runs as an ``exec`` of the container's OCI runtime with the container's own process settings: its user,
groups, capabilities, profiles and cgroup, in its namespaces. A POST goes to the address that the runtime gave the pod.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from agent import errors
from agent.restore import asking
from agent.restore.post_restore import Hook, OnFailure, Way
from agent.runtimes import execs, pod_http, pods, runc
from agent.runtimes.commands import Host

FAILED_CODE: Final = "hook_failed"
BESIDE_S: Final = 15.0  # the proof before it, the pod's address, ending what does not end
_ADDRESS_S: Final = 3.0


class Sandboxes(Protocol):
    """What the runtime knows of a sandbox (``runtimes.cri.Client``)."""

    async def sandbox(self, sandbox_id: str) -> pods.SandboxDetail:
        """One sandbox in full."""


class Hooked(msgspec.Struct, frozen=True, kw_only=True):
    """A hook with what it is told: ``variables`` for a command, ``document`` for a POST."""

    hook: Hook
    variables: dict[str, str]
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Whose:
    """The restored container. ``pid`` is of its first process on the node."""

    container_id: str
    sandbox_id: str
    bundle: str
    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a hook ended: ``failure`` is one sentence, "" when it went well."""

    failure: str
    took_ms: float


async def run(host: Host, runtime: Sandboxes, whose: Whose, hooked: Hooked) -> Ended:
    """Run the hook and, if it failed and the workload wants that, end the container. Bounded by its time-out."""
    began = time.monotonic()
    hook = hooked.hook
    try:
        if hook.way is Way.EXEC:
            failure = await _execute(host, whose, hooked)
        else:
            failure = await _post(runtime, whose, hooked)
    except errors.SnapError as cause:
        failure = cause.message
    except (OSError, ValueError) as cause:
        failure = f"It could not be run: {cause}."
    took_ms = (time.monotonic() - began) * 1000
    if failure and hook.on_failure is OnFailure.RESTART:
        await execs.kill(host, whose.container_id, whose.pid)
        failure = f"{failure} The container was ended and starts cold, as the workload wants it."
    return Ended(failure, took_ms)


async def _execute(host: Host, whose: Whose, hooked: Hooked) -> str:
    oci = await asyncio.to_thread(runc.find, host, whose.container_id)
    if oci is None:
        return "The container's OCI runtime was not found."
    config = host.path(f"{whose.bundle}/config.json")
    asker = await asyncio.to_thread(asking.read, config)
    process = (asker.spec if asker else {}).get("process")
    if not isinstance(process, dict):
        return "The container's configuration names no process."
    process = _process(process, hooked.hook.command, hooked.variables)
    text = json.dumps(process).encode()
    return await execs.run(oci, whose.container_id, text, hooked.hook.timeout_s)


def _process(
    own: Mapping[str, Any], command: tuple[str, ...], variables: Mapping[str, str]
) -> dict[str, Any]:
    """The container's own process with another command, ours added to its environment."""
    kept = [line for line in own.get("env") or () if line.partition("=")[0] not in variables]
    env = [*kept, *(f"{name}={value}" for name, value in variables.items())]
    other = {name: value for name, value in own.items() if name not in ("consoleSize", "terminal")}
    return {**other, "args": list(command), "env": env}


async def _post(runtime: Sandboxes, whose: Whose, hooked: Hooked) -> str:
    try:
        async with asyncio.timeout(_ADDRESS_S):
            detail = await runtime.sandbox(whose.sandbox_id)
    except TimeoutError:
        return "The runtime did not tell the pod's address in time."
    if detail.host_network or not detail.ip:
        return "The pod has no address of its own (hostNetwork), so nothing is sent."
    hook = hooked.hook
    target = pod_http.Target(detail.ip, hook.port, hook.path)
    status = await pod_http.post(target, json.dumps(hooked.document).encode(), hook.timeout_s)
    return "" if 200 <= status < 300 else f"Port {hook.port} answered with status {status}."
