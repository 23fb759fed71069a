"""Processes of an instance: started into its cgroups, found again by pid and start time, ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.devnode import cgroups

_AGAIN = 'while :; do "$@"; sleep 1; done'  # as a kubelet does


class NotReady(RuntimeError):
    """Something that was started did not become usable in time; the message ends with its log's tail."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start and where.

    Attributes:
        cgroup: path below the hierarchies' roots that it lives in.
        log: file that its output is appended to.
    """

    argv: Sequence[str]
    cgroup: str
    log: Path
    env: Mapping[str, str] | None = None


def again(*program: str) -> list[str]:
    """``program``, started anew whenever it ends or is killed."""
    return ["sh", "-c", _AGAIN, "sh", *program]


_STARTED: list[subprocess.Popen[bytes]] = []  # kept, so that what ends while we live is reaped


def start(launch: Launch) -> subprocess.Popen[bytes]:
    """Start ``launch`` in a session of its own; it outlives us."""
    folders = cgroups.make(launch.cgroup)
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    with launch.log.open("ab") as sink:
        process = subprocess.Popen(
            cgroups.entering(folders, list(launch.argv)),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env=None if launch.env is None else dict(launch.env),
        )
    _STARTED.append(process)
    return process


def reap() -> None:
    """Collect the exit status of what was started here and has ended."""
    _STARTED[:] = [process for process in _STARTED if process.poll() is None]


def wait_until(
    ready: Callable[[], bool],
    what: str,
    *,
    timeout_s: float,
    log: Path | None = None,
    alive: Callable[[], bool] = lambda: True,
    pause_s: float = 0.03,
) -> None:
    """Wait for ``ready``, asking every ``pause_s``.

    Raises:
        NotReady: the deadline passed, or ``alive`` became false.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not alive() or time.monotonic() > deadline:
            why = "is not ready in time" if alive() else "ended at once"
            raise NotReady(f"{what} {why}{tail(log)}")
        time.sleep(pause_s)


def tail(log: Path | None, lines: int = 8) -> str:
    """The last lines of ``log``, for an error's message."""
    if log is None or not log.is_file():
        return ""
    last = log.read_text(errors="replace").splitlines()[-lines:]
    return "; its log ends:\n" + "\n".join(last) if last else ""


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started and that are still there."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(w) for w in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def only_child(
    process: subprocess.Popen[bytes], *, timeout_s: float = 30.0, log: Path | None = None
) -> int:
    """The one process behind ``unshare --fork`` or ``nsenter``, as seen from this machine.

    Raises:
        NotReady: it did not appear; the message ends with the log.
    """
    wait_until(
        lambda: bool(children(process.pid)),
        "the process in its own namespaces",
        timeout_s=timeout_s,
        log=log,
        alive=lambda: process.poll() is None,
    )
    return children(process.pid)[0]


def start_time(pid: int) -> str:
    """What tells ``pid`` from a later process of the same number; empty if it is gone.

    Source: proc(5), field 22 of /proc/<pid>/stat.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(pid: int, started: str) -> bool:
    """Whether that very process is there and no zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return words[19] == started and words[0] not in "ZX"


def wait_gone(pid: int, started: str, *, timeout_s: float = 30) -> None:
    """Wait until a killed process holds nothing any more.

    A zombie may: its first thread can be one while others still hold its listening sockets.

    Raises:
        NotReady: it is still there at the deadline.
    """

    def is_gone() -> bool:
        reap()
        return start_time(pid) != started

    wait_until(is_gone, f"the end of process {pid}", timeout_s=timeout_s)


def end(process: subprocess.Popen[bytes], pid: int, *, timeout_s: float) -> int | None:
    """Ask ``pid`` (``process`` or the one behind it) to end, kill it at the deadline, reap; the exit status.

    Returns:
        None if it had to be killed.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        kill(process, pid)
        return None


def kill(process: subprocess.Popen[bytes], pid: int) -> None:
    """``kill -9`` and reap."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    process.wait(30)
