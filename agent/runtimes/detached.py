"""Programs on the node that outlive the agent: own session, own cgroup, known by a pid file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent import errors
from agent.runtimes import commands
from agent.runtimes.commands import Host

CGROUP: Final = "snap-agent"
_START_S: Final = 10.0
_KILL_S: Final = 10.0
_LOOK_S: Final = 0.03

# The agent's own cgroup dies with its pod, and its memory limit would count the page cache of what
# is written. On cgroup v1 every controller has to be left; cpuset takes nobody before it is set.
_LAUNCH: Final = r"""
log=$1; group=$2; shift 2
join() {
  [ -w "$1/cgroup.procs" ] || return 0
  [ -d "$1/$group" ] || mkdir -p "$1/$group" || return 0
  for file in cpuset.cpus cpuset.mems; do
    [ -e "$1/$file" ] && [ ! -e "$1/cgroup.controllers" ] || continue
    read -r value <"$1/$file" && echo "$value" >"$1/$group/$file"
  done
  echo 0 >"$1/$group/cgroup.procs"
}
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then join /sys/fs/cgroup
else for tree in /sys/fs/cgroup/*; do join "$tree"; done
fi 2>/dev/null
exec setsid -f "$@" </dev/null >>"$log" 2>&1
"""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the node. ``started`` (clock ticks since boot) tells it from a later one."""

    pid: int
    started: int


def install(host: Host, path: str, program: bytes) -> None:
    """Have ``program`` at ``path`` on the node; one that runs keeps the file it was started from. Blocks."""
    place = host.path(path)
    if place.is_file() and place.read_bytes() == program:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(place.name + ".tmp")
    partial.write_bytes(program)
    partial.chmod(0o755)
    partial.replace(place)


async def start(host: Host, argv: Sequence[str], log: str) -> None:
    """Start ``argv`` on the node in a session and cgroup of its own; its output goes to ``log``.

    It is nobody's child afterwards: the node's init reaps it. It should write a pid file
    (``<pid> <start time>``) first thing.

    Raises:
        CommandFailed: it could not be started.
    """
    launch = ["sh", "-c", _LAUNCH, "sh", log, CGROUP, *argv]
    # setsid -f returns before its child has a session of its own
    done = await commands.run(host, launch, timeout_s=_START_S, keep_children=True)
    done.check(f"{argv[0]} could not be started on the node.")


def read_pid(host: Host, file: str) -> Process | None:
    """The process that wrote the pid file ``file``; None: no such file yet."""
    try:
        pid, started = host.path(file).read_text().split()
        return Process(int(pid), int(started))
    except (FileNotFoundError, ValueError):
        return None


def is_alive(host: Host, process: Process) -> bool:
    """Whether ``process`` still runs (a zombie does not)."""
    fields = _stat(host, process.pid)
    return bool(fields) and fields[0] not in ("Z", "X") and int(fields[19]) == process.started


def _stat(host: Host, pid: int) -> list[str]:
    """Fields of a process from the 3rd (state) on; the 6th is the session, the 22nd the start time.

    Source: proc_pid_stat(5); the name in parentheses may hold anything.
    """
    try:
        return host.path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


async def stop(host: Host, process: Process, *, grace_s: float) -> bool:
    """Ask ``process`` to end, give its whole session ``grace_s``, then kill it. Nothing is left.

    Returns:
        Whether all of it ended by itself, that is, had the time to put things right.

    Raises:
        Broken: something can't be killed.
    """
    if is_alive(host, process):
        await _signal(host, "TERM", str(process.pid))
    if not await _left_after(host, process, grace_s):
        return True
    await _signal(host, "KILL", *map(str, await asyncio.to_thread(members, host, process)))
    if left := await _left_after(host, process, _KILL_S):
        raise errors.Broken(f"Process {left[0]} on the node can't be killed; look at it.")
    return False


async def _left_after(host: Host, process: Process, timeout_s: float) -> tuple[int, ...]:
    """What is left of the session after at most ``timeout_s``."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while left := await asyncio.to_thread(members, host, process):
        if asyncio.get_running_loop().time() > deadline:
            return left
        await asyncio.sleep(_LOOK_S)
    return ()


def members(host: Host, leader: Process) -> tuple[int, ...]:
    """What lives of the session that ``leader`` led, itself included. Reads all of /proc.

    A pid is not given out again while a session has it as its id, so that a younger process with
    the leader's pid means that the session is gone.
    """
    found = []
    for entry in host.path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(host, int(entry.name))):
            pid, session, started = int(entry.name), int(fields[3]), int(fields[19])
            if pid == leader.pid and started != leader.started:
                return ()
            if session == leader.pid and fields[0] not in ("Z", "X"):
                found.append(pid)
    return tuple(found)


async def _signal(host: Host, name: str, *targets: str) -> None:
    argv = ["sh", "-c", 'kill -s "$@" 2>/dev/null', "sh", name, *targets]
    await commands.run(host, argv, timeout_s=_START_S)
