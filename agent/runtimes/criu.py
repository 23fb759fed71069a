"""CRIU on the node: version, features, and what its log says about a failure.

Source: criu(8); the messages are those of CRIU 3.17-4.2 (lines ``Error (file:line): …``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from agent import errors
from agent.runtimes import commands
from agent.runtimes.commands import Host

FEATURES: Final = ("mem_dirty_track", "pagemap_scan", "uffd", "uffd-noncoop", "pidfd_store")
_CALL_S: Final = 15.0
_LOG_BYTES: Final = 256 << 10
# said in every log of a node without CAP_SYS_RESOURCE, and never the cause of anything
_HARMLESS: Final = ("RLIMIT_NOFILE for self", "Unable to detach from", "Dumping FAILED")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why CRIU failed, in one sentence with its remedy; ``lines`` are its own words."""

    sentence: str
    lines: tuple[str, ...]
    retry: bool = False


# pattern → what it means and what to do; the first that is found in the log is the cause
_CAUSES: Final = tuple(
    (re.compile(pattern), sentence, retry)
    for pattern, sentence, retry in (
        (
            r"Connected TCP socket|established TCP",
            "A TCP connection is open; CRIU needs the option tcp-close (or tcp-established).",
            False,
        ),
        (
            r"In-flight connection",
            "A TCP connection waits to be accepted; CRIU needs the option skip-in-flight.",
            False,
        ),
        (
            r"Some file locks are hold|file locks? .*--file-locks",
            "A process holds a file lock; CRIU needs the option file-locks.",
            False,
        ),
        (
            r"io_uring|send_fds failed \(-22\)",
            (
                "A process has an io_uring ring open, which CRIU can't dump; turn io_uring "
                "off in the application or use the seccomp profile RuntimeDefault."
            ),
            False,
        ),
        (
            r"[Cc]an't dump ghost file|ghost file .* size",
            "A deleted file that is still open is larger than the ghost limit; raise ghost-limit.",
            False,
        ),
        (
            r"Can't dump that handle|fsnotify.*(can't|cannot)",
            (
                "A process watches a path that CRIU can't name again (inotify); let it watch "
                "a volume or stop watching before the checkpoint."
            ),
            False,
        ),
        (
            r"Can't create link remap|link-remap",
            "An open file was deleted but has other names; CRIU needs the option link-remap.",
            False,
        ),
        (
            r"External socket is used|--ext-unix-sk|half of stream unix",
            "A unix socket is connected to a process outside the container; close it first.",
            False,
        ),
        (
            r"Can't lookup mount=\S+ for fd=",
            (
                "An open file lies on a mount outside the container (its standard output was "
                "redirected, or a file was handed in); it can't be dumped."
            ),
            False,
        ),
        (
            r"Can't dump file \d+ of that type|[Uu]nsupported (file|fd|socket|netlink|packet)",
            "A process has a file or socket open of a kind that CRIU does not support.",
            False,
        ),
        (
            r"dangling tty|--shell-job",
            "A process is tied to a terminal outside the container; detach it first.",
            False,
        ),
        (
            r"unreachable sharing|doesn't have a proper root mount|mnt: .*(No mapping|[Cc]an't)",
            (
                "A mount of the container can't be mapped (mount propagation or an external "
                "mount); use private propagation."
            ),
            False,
        ),
        (
            r"Can't get rlimit|CAP_SYS_RESOURCE",
            "CRIU may not read the limits of another user's process; it needs CAP_SYS_RESOURCE.",
            False,
        ),
        (
            r"Unable to wait processes|Timeout reached|Unable to freeze cgroup",
            (
                "The processes could not be stopped in time (a process was just being started "
                "in the container, or hangs in the kernel); try again."
            ),
            True,
        ),
        (
            r"No space left on device",
            "The node's disk is full; free some room under /var/lib/snap.",
            False,
        ),
        (
            r"doesn't live in IPC ns|SysVIPC",
            "A process uses System V shared memory of another namespace.",
            False,
        ),
        (
            r"Can't fork for \d+: File exists",
            (
                "A process number of the checkpoint is taken by another container of the pod, with "
                "which it shares its PID namespace; start all of the pod's containers from checkpoints."
            ),
            False,
        ),
        (
            r"Script .* exited with|action scripts failed",
            "The container's files could not be copied while it was frozen.",
            False,
        ),
        (
            r"[Uu]nsupported (mapping|vma)|hugetlb",
            "A process has a memory mapping of a kind that CRIU does not support.",
            False,
        ),
    )
)


async def version(host: Host) -> str:
    """CRIU's version on the node (``4.2.1``); empty when it is not there."""
    try:
        done = await commands.run(host, ["criu", "--version"], timeout_s=_CALL_S)
    except errors.CommandFailed:
        return ""
    found = re.search(r"^Version:\s*(\S+)", done.text, re.MULTILINE)
    return found[1] if done.status == 0 and found else ""


async def check(host: Host) -> str:
    """Whether CRIU can work on this kernel: empty if so, else its last words."""
    try:
        done = await commands.run(host, ["criu", "check"], timeout_s=_CALL_S)
    except errors.CommandFailed as cause:
        return cause.message
    return "" if done.status == 0 else (done.stderr_tail.strip() or done.text)[-1000:]


async def features(host: Host) -> tuple[str, ...]:
    """Which of ``FEATURES`` CRIU and the kernel have together."""
    found = []
    for feature in FEATURES:
        done = await commands.run(host, ["criu", "check", "--feature", feature], timeout_s=_CALL_S)
        if done.status == 0:
            found.append(feature)
    return tuple(found)


def read_log(host: Host, path: str) -> str:
    """The end of CRIU's log at ``path`` on the node; empty when there is none."""
    try:
        with host.path(path).open("rb") as log:
            log.seek(0, 2)
            log.seek(max(log.tell() - _LOG_BYTES, 0))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def cause(log: str) -> Cause | None:
    """Why CRIU failed, read from its ``log``; None: the log says nothing about an error."""
    lines = tuple(
        line.strip()
        for line in log.splitlines()
        if "Error (" in line and not any(text in line for text in _HARMLESS)
    )
    told = "\n".join(lines)
    for pattern, sentence, retry in _CAUSES:
        if pattern.search(told):
            return Cause(sentence, lines[-20:], retry)
    if not lines:
        return None
    own_words = re.sub(r"^\([\d.]+\)\s*(\d+:\s*)?Error \([^)]*\):\s*", "", lines[0])
    return Cause(f"CRIU stopped: {own_words.rstrip('.')}.", lines[-20:])
