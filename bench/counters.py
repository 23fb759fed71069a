"""Counters of processes, read from /proc.

Source: proc(5): /proc/<pid>/io, status, stat, smaps_rollup, clear_refs. A process's io counters take in those of its
children when it reaps them, so summing over a node's living processes, its init among them, misses no one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.devnode import cgroups, processes

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_GONE: Final = (FileNotFoundError, ProcessLookupError)
_LOOK_S: Final = 0.02


def written_bytes(cgroup: str) -> Mapping[tuple[int, str], int]:
    """Bytes that each process of ``cgroup``, and this one, caused to be written to disks so far."""
    found: dict[tuple[int, str], int] = {}
    for pid in (*cgroups.processes(cgroup), os.getpid()):
        with contextlib.suppress(*_GONE):
            lines = Path(f"/proc/{pid}/io").read_text().splitlines()
            count = next(int(x.split()[1]) for x in lines if x.startswith("write_bytes:"))
            found[pid, processes.start_time(pid)] = count
    return found


def written_since(before: Mapping[tuple[int, str], int], cgroup: str) -> int:
    """Bytes written since ``before`` by processes of ``cgroup`` and this one."""
    now = written_bytes(cgroup)
    return sum(count - before.get(key, 0) for key, count in now.items())


@dataclass(slots=True)
class Peak:
    """The most memory that was seen, in bytes: of the process by the kernel, of its cgroup by looking often."""

    process: int = 0
    cgroup: int = 0

    @property
    def mib(self) -> float:
        """The larger one."""
        return max(self.process, self.cgroup) / (1 << 20)


@contextlib.contextmanager
def memory_peak(pid: int, folder: Path) -> Iterator[Peak]:
    """The peak over the block of process ``pid`` (VmHWM) and of its cgroup ``folder`` without page cache."""
    peak = Peak()
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_S):
            peak.cgroup = max(peak.cgroup, _anonymous(folder))

    watcher = threading.Thread(target=look, name="memory", daemon=True)
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM starts again at what is there now
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.process = status_bytes(pid, "VmHWM")


def _anonymous(folder: Path) -> int:
    """Memory of a cgroup that is no page cache: ``rss`` (version 1) or ``anon`` (version 2)."""
    words = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(words.get("total_rss") or words.get("anon") or 0)


def status_bytes(pid: int, key: str) -> int:
    """A size from /proc/<pid>/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    return 0


def cpu_s(pid: int) -> float:
    """Seconds of processor time of ``pid`` and of the children that it reaped."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / _TICKS


def cpu_percent(pid: int, over_s: float) -> float:
    """Percent of one core that ``pid`` takes, looked at for ``over_s`` seconds."""
    before, began = cpu_s(pid), time.monotonic()
    time.sleep(over_s)
    return 100 * (cpu_s(pid) - before) / (time.monotonic() - began)
