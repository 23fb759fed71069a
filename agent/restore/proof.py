"""That a restore really worked: the process is there and runs, and CRIU's own figures."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from agent.formats import criu_images, criu_wire
from agent.runtimes.commands import Host

_PID_FILES: Final = ("init.pid", "pidfile")  # containerd's shim, CRI-O's conmon
_STATS: Final = "stats-restore"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen. ``pid`` 0: no process of the container runs."""

    pid: int
    criu_restore_ms: float
    pages_restored: int
    restored_at_ns: int


async def look(host: Host, container_id: str, bundle: str, work: str, *, within_s: float) -> Proof:
    """Wait until the container's first process runs, at most ``within_s``, and read CRIU's figures."""
    deadline = time.monotonic() + within_s
    pid = 0
    while not pid:
        pid = _running(host, container_id, bundle)
        if pid or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.02)  # between SIGCONT and the scheduler's answer
    return Proof(pid, *_statistics(host, work))


def _running(host: Host, container_id: str, bundle: str) -> int:
    """The first process of the container if it runs (and is not a stranger with a pid used again)."""
    for name in _PID_FILES:
        try:
            pid = int(host.path(f"{bundle}/{name}").read_text())
            state = host.path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            cgroup = host.path(f"/proc/{pid}/cgroup").read_text()
        except (OSError, ValueError, IndexError):
            continue
        if state not in "TtZX" and container_id in cgroup:
            return pid
    return 0


def _statistics(host: Host, work: str) -> tuple[float, int, int]:
    """Restore time in ms, pages, and when the file was written; zeros where CRIU left none.

    Source: CRIU, images/stats.proto; the file is written when the restore is done.
    """
    file = host.path(f"{work}/{_STATS}")
    try:
        stats = criu_wire.restore_stats_of(criu_images.first(file.read_bytes()))
        written_ns = file.stat().st_mtime_ns
    except (OSError, ValueError):
        return 0.0, 0, 0
    return stats.restore_time_us / 1000, stats.pages_restored, written_ns
