"""What follows from a node's facts: which engines and drivers work here, what is missing, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from agent.node.facts import NodeFacts, Readiness, Reason, Vitals
from agent.runtimes.kubelet_errors import Gate

HANDLER: Final = "snap"
WRAPPER: Final = "/opt/snap/bin/snap-runc"
LOW_DISK: Final = 0.10  # the floor that retention keeps free

# Source: containerd's release notes: restore through CreateContainer came with 2.1, needs an option
# from 2.2.7 and 2.3.4 on, and is gone in 2.4; CheckpointContainer came with 2.0; CRI-O has it since
# 1.25
_CONTAINERD_CHECKPOINTS: Final = (2, 0)
_CRIO_CHECKPOINTS: Final = (1, 25)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the probe found beyond the plain facts.

    Attributes:
        runtime_problem: why the container runtime can't be used, "" if it can.
        criu_problem: what ``criu check`` said, "" if all is well.
        handlers: the runtime handlers that are configured.
        wrapper: whether the OCI runtime wrapper is in its place.
        is_root: whether the agent may do its work at all.
        gate: what the kubelet says to a checkpoint of a pod that can't be; and its own words.
        own_restore: whether containerd's own restore of images is set to work, as far as its
            version leaves that open; None: it does not tell.
        own_checkpoint: whether CRI-O is set to take checkpoints itself; None: it does not tell.
    """

    runtime_problem: str
    criu_problem: str
    handlers: tuple[str, ...]
    wrapper: bool
    is_root: bool
    gate: Gate = Gate.ABSENT
    gate_said: str = ""
    own_restore: bool | None = None
    own_checkpoint: bool | None = None


def judge(facts: NodeFacts, found: Findings) -> Readiness:
    """``facts`` with the engines and drivers that work, and everything that is missing."""
    whole = replace(
        facts, engines=engines(facts, found), restore_drivers=restore_drivers(facts, found)
    )
    return Readiness(whole, reasons(whole, found))


def engines(facts: NodeFacts, found: Findings) -> tuple[str, ...]:
    """The checkpoint engines that work here, best first."""
    if found.runtime_problem or found.criu_problem or not facts.criu_version:
        return ()
    usable = ["runc"] if facts.oci_runtime_version else []
    if _checkpoints(facts, found):
        usable += ["kubelet", "cri"] if found.gate is Gate.ON else ["cri"]
    return tuple(usable)


def _checkpoints(facts: NodeFacts, found: Findings) -> bool:
    """Whether the container runtime takes checkpoints itself; the kubelet only asks it."""
    least = {"containerd": _CONTAINERD_CHECKPOINTS, "cri-o": _CRIO_CHECKPOINTS}.get(facts.runtime)
    if least is None or found.own_checkpoint is False:
        return False
    return numbers(facts.runtime_version) >= least


def restore_drivers(facts: NodeFacts, found: Findings) -> tuple[str, ...]:
    """The restore drivers that work here, best first."""
    if found.runtime_problem or found.criu_problem or not facts.criu_version:
        return ()
    usable = ["runtime"] if found.wrapper and HANDLER in found.handlers else []
    if _restores_images(facts, found):
        usable.append("image")
    return tuple(usable)


def reasons(facts: NodeFacts, found: Findings) -> tuple[Reason, ...]:
    """Everything that is missing, worst first."""
    return (*_blocking(facts, found), *_limiting(facts, found))


def disk_reasons(vitals: Vitals) -> tuple[Reason, ...]:
    """What the disk limits right now."""
    if vitals.disk_free_bytes >= vitals.disk_total_bytes * LOW_DISK:
        return ()
    free = vitals.disk_free_bytes / (1 << 30)
    return (
        Reason(
            "DiskLow",
            f"Only {free:.1f} GiB are free where checkpoints are kept.",
            "Free room on the node's disk, or delete checkpoints.",
            blocking=False,
        ),
    )


def is_too_old(facts: NodeFacts) -> bool:
    """Whether CRIU is older than this kernel needs. Source: CRIU 4.1 learned the vdso of Linux 6.11."""
    return numbers(facts.criu_version) < (4, 1) and numbers(facts.kernel) >= (6, 11)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers a version begins with; () before all others where there is none."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _blocking(facts: NodeFacts, found: Findings) -> Iterator[Reason]:
    if not found.is_root:
        yield Reason(
            "NotRoot", "The agent does not run as root.", "Run it as root, in a pod: privileged."
        )
    if found.runtime_problem:
        yield Reason(
            "RuntimeUnavailable",
            found.runtime_problem,
            "Start containerd or CRI-O, or name its socket in SNAP_CRI_ENDPOINT.",
        )
    if not facts.criu_version:
        yield Reason(
            "CriuMissing",
            "CRIU is not on this node.",
            "Install criu 4.1 or later on the node (Debian, Ubuntu: apt-get install criu).",
        )
    elif found.criu_problem:
        last = found.criu_problem.splitlines()[-1].strip()
        yield Reason(
            "CriuUnusable",
            f"CRIU can't work on this kernel: {last}",
            "Run criu check on the node; it takes root and a kernel with CHECKPOINT_RESTORE.",
        )
    if not facts.oci_runtime_version:
        yield Reason(
            "OciRuntimeMissing",
            "Neither runc nor crun is on this node.",
            "Install runc 1.1 or later on the node.",
        )


def _limiting(facts: NodeFacts, found: Findings) -> Iterator[Reason]:
    if facts.criu_version and numbers(facts.criu_version) < (4, 1):
        yield Reason(
            "CriuOld",
            f"CRIU {facts.criu_version} fails on recent kernels.",
            "Install criu 4.1 or later.",
            blocking=False,
        )
    if not found.runtime_problem and HANDLER not in found.handlers:
        yield Reason(
            "HandlerMissing",
            "The container runtime has no handler named snap, so nothing is restored here.",
            f"Add the runtime handler snap with {WRAPPER} to the runtime's configuration.",
            blocking=False,
        )
    if not found.wrapper:
        yield Reason(
            "WrapperMissing",
            f"{WRAPPER} is not on this node, so nothing is restored here.",
            "Install it there with mode 0755.",
            blocking=False,
        )
    yield from _of_the_kubelet(facts, found)


def _restores_images(facts: NodeFacts, found: Findings) -> bool:
    """Whether the container runtime restores our checkpoint images itself.

    CRI-O does so with its own only: it looks for the id of an image of the node in ``config.dump``,
    where ours name the image ("invalid RootfsImageRef", seen with 1.34).
    """
    version = numbers(facts.runtime_version)
    if facts.runtime != "containerd":
        return False
    if (2, 1) <= version < (2, 2, 7) or (2, 3) <= version < (2, 3, 4):
        return True
    return (2, 2, 7) <= version < (2, 4) and bool(found.own_restore)


def _of_the_kubelet(facts: NodeFacts, found: Findings) -> Iterator[Reason]:
    """Why the kubelet can't be asked; a node without one lacks nothing."""
    if not facts.kubelet_version and found.gate in (Gate.ABSENT, Gate.NO_TOKEN):
        return
    if told := _GATES.get(found.gate):
        code, message, remedy = told
        yield Reason(code, message.format(said=found.gate_said), remedy, blocking=False)


_GATES: Final = {
    Gate.OFF: (
        "KubeletCheckpointOff",
        "The kubelet takes no checkpoints, so engine kubelet can't be used.",
        "Turn on the kubelet's feature gate ContainerCheckpoint (on by default from 1.30).",
    ),
    Gate.ABSENT: (
        "KubeletSilent",
        "The kubelet does not answer, so engine kubelet can't be used: {said}",
        "Name its address in SNAP_KUBELET_URL; in a pod the agent needs hostNetwork.",
    ),
    Gate.NO_TOKEN: (
        "KubeletNoToken",
        "The agent has no service-account token for the kubelet, so engine kubelet can't be used.",
        "Run the agent as the DaemonSet, or name a token's file in SNAP_KUBELET_TOKEN_FILE.",
    ),
    Gate.UNAUTHORIZED: (
        "KubeletUnauthorized",
        "The kubelet does not know the agent's token, so engine kubelet can't be used.",
        "Let the kubelet ask the API server about tokens (authentication.webhook.enabled: true).",
    ),
    Gate.FORBIDDEN: (
        "KubeletForbidden",
        "The kubelet refuses checkpoints to the agent's service account: {said}",
        "Grant it create on nodes/checkpoint (never nodes/proxy).",
    ),
    Gate.UNTRUSTED: (
        "KubeletUntrusted",
        "The kubelet's certificate is not one that the agent trusts: {said}",
        "Name its CA in SNAP_KUBELET_CA_FILE, or have the cluster sign it (serverTLSBootstrap).",
    ),
    Gate.ODD: (
        "KubeletUnclear",
        "The kubelet's answer is not understood, so engine kubelet is not used: {said}",
        "Look at SNAP_KUBELET_URL: it must be the kubelet's own HTTPS port.",
    ),
}
