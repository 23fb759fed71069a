"""Never more than the pod allows: CRIU brings back ids, capabilities and seccomp as they were, unasked.

Compared is what every thread in the images really has, not what the old pod's configuration said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.formats.criu_wire import Core, Credentials
from agent.formats.template import Template

# Source: linux/capability.h; the place in this list is the capability's number.
CAPABILITIES: Final = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
]
_BIT: Final = {name: 1 << number for number, name in enumerate(CAPABILITIES)}
_SETUID: Final = _BIT["CAP_SETUID"]
_SETGID: Final = _BIT["CAP_SETGID"]
SECCOMP_FILTER: Final = 2
# Source: CRIU, compel/include/uapi/task-state.h. Ended, and not reaped: CRIU makes a process that ends at once again,
# which runs nothing of the image, and writes down no credentials of it.
_DEAD: Final = frozenset({2, 6})


def excess(threads: Iterable[tuple[str, Core]], old: Template, new: Template) -> str:
    """What the threads may do that the pod forbids, as one sentence; "" when they stay within.

    Args:
        threads: of the checkpoint, by the name of their image.
        old: what the checkpointed container asked for (for what CRIU does not record).
        new: what the pod asks for now.
    """
    for field, asked, had in (
        ("AppArmor profile", new.apparmor_profile, old.apparmor_profile),
        ("SELinux label", new.selinux_label, old.selinux_label),
    ):
        if asked and asked != had:
            return f"the pod asks for the {field} {asked}, the checkpoint has {had or 'none'}"
    for image, core in threads:
        if reason := _of_thread(core, new):
            return f"{image}: {reason}"
    return ""


def _of_thread(core: Core, pod: Template) -> str:
    if core.task_state in _DEAD and core.credentials is None:
        return ""
    if core.credentials is None:
        return "the image does not say who the process is"
    if pod.seccomp and core.seccomp_mode != SECCOMP_FILTER:
        return "the pod asks for a seccomp filter, the process has none"
    if pod.no_new_privileges and not core.credentials.no_new_privileges:
        return "the pod forbids new privileges, the process may gain them"
    return (
        _capabilities(core.credentials, pod)
        or _users(core.credentials, pod)
        or _groups(core.credentials, pod)
        or _confinement(core.credentials, pod)
    )


def _capabilities(held: Credentials, pod: Template) -> str:
    bounding = mask(pod.capabilities.get("bounding", ()))
    # A program that is not root gains capabilities only from files, which no_new_privs forbids.
    confined = pod.uid != 0 and pod.no_new_privileges
    permitted = mask(pod.capabilities.get("ambient", ())) if confined else bounding
    for name, has, may in (
        ("bounding", held.bounding, bounding),
        ("permitted", held.permitted, permitted),
        ("effective", held.effective, permitted),
        ("inheritable", held.inheritable, bounding),
    ):
        if beyond := has & ~may:
            return (
                f"the process has {', '.join(names(beyond))} ({name}), the pod does not allow it; "
                "name capabilities in both pods' securityContext, for runtimes' defaults differ"
            )
    return ""


def _users(held: Credentials, pod: Template) -> str:
    ids = {held.uid, held.euid, held.suid, held.fsuid}
    if ids == {pod.uid} or _may_change(pod, _SETUID):
        return ""
    beyond = min(ids - {pod.uid})
    return f"the process has user id {beyond}, the pod runs as {pod.uid} and may not change it"


def _groups(held: Credentials, pod: Template) -> str:
    ids = {held.gid, held.egid, held.sgid, held.fsgid, *held.groups}
    own = {pod.gid, *pod.additional_gids}
    if ids <= own or _may_change(pod, _SETGID):
        return ""
    return f"the process has group id {min(ids - own)}, which the pod neither has nor may change to"


def _may_change(pod: Template, capability: int) -> bool:
    """Only root with the capability: a set-user-id program in the image is not what the pod asked for."""
    return pod.uid == 0 and bool(mask(pod.capabilities.get("bounding", ())) & capability)


def _confinement(held: Credentials, pod: Template) -> str:
    """The profile that CRIU will set is the image's, whatever the configuration of the old pod said."""
    profile = held.lsm_profile
    if pod.apparmor_profile and profile.split(" (")[0] != pod.apparmor_profile:
        return (
            f"the process has the AppArmor profile {profile or 'none'}, not {pod.apparmor_profile}"
        )
    if pod.selinux_label and profile != pod.selinux_label:
        return f"the process has the SELinux label {profile or 'none'}, not {pod.selinux_label}"
    return ""


def mask(capabilities: Iterable[str]) -> int:
    """The capabilities as a mask; names that this list does not know are left out, so never allowed."""
    return sum(_BIT.get(name, 0) for name in set(capabilities))


def names(capabilities: int) -> list[str]:
    """The names in a mask, lowest first."""
    known = [name for name, bit in _BIT.items() if capabilities & bit]
    unknown = capabilities >> len(CAPABILITIES)
    return [*known, *(["unknown capabilities"] if unknown else [])]
