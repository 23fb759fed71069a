"""What processes of the node hold, read from /proc: memory, mappings, open files.

Source: proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from agent.runtimes.commands import Host

_MEMORY = ("RssAnon:", "RssShmem:", "VmSwap:")  # what a dump writes; file-backed pages come again


def dumped_bytes(host: Host, pids: Iterable[int]) -> int:
    """How much memory of ``pids`` a dump writes, at most: shared pages count several times."""
    total = 0
    for pid in pids:
        for line in _lines(host, pid, "status"):
            if line.startswith(_MEMORY):
                total += int(line.split()[1]) << 10
    return total


def has_io_uring(host: Host, pids: Iterable[int]) -> bool:
    """Whether one of ``pids`` has an io_uring ring open."""
    return any("io_uring" in target for pid in pids for target in _open_files(host, pid))


def has_sysv_memory(host: Host, pids: Iterable[int]) -> bool:
    """Whether one of ``pids`` has a System V shared memory segment attached."""
    return any("/SYSV" in line for pid in pids for line in _lines(host, pid, "maps"))


def namespace(host: Host, pid: int | str, kind: str) -> str:
    """The identity of a process's namespace (``net:[4026531840]``); empty when it is gone."""
    try:
        return str(host.path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def _lines(host: Host, pid: int, file: str) -> list[str]:
    try:
        return host.path(f"/proc/{pid}/{file}").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return []


def _open_files(host: Host, pid: int) -> list[str]:
    targets = []
    try:
        with os.scandir(host.path(f"/proc/{pid}/fd")) as entries:
            for entry in entries:
                try:
                    targets.append(os.readlink(entry.path))  # noqa: PTH115 - thousands of them
                except OSError:
                    continue
    except (FileNotFoundError, ProcessLookupError):
        return targets
    return targets
