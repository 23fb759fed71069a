"""Ending a restore that hangs: CRIU 4.2.1 can spin for ever, and whoever kills its runtime leaves it spinning."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import Final

from agent.runtimes import commands
from agent.runtimes.commands import Host

# A slow disk brings 20 MB/s; the rest is for the processes themselves.
PATIENCE_S: Final = 30.0
SLOWEST_BYTES_PER_S: Final = 20_000_000
_KILL_S: Final = 5.0


def patience_s(memory_bytes: int) -> float:
    """How long a restore of so many bytes may take at most."""
    return PATIENCE_S + memory_bytes / SLOWEST_BYTES_PER_S


async def stop(host: Host, container_id: str) -> int:
    """Kill the runtime that restores ``container_id`` with all that it has started; returns how many processes.

    Children first: they are nobody's once their parent is gone. 0: no restore of it is running.
    """
    victims = _restoring(host, container_id)
    if victims:
        argv = ["kill", "-KILL", *(str(pid) for pid in victims)]
        await commands.run(host, argv, timeout_s=_KILL_S)  # one that is gone already is fine
    return len(victims)


def _restoring(host: Host, container_id: str) -> list[int]:
    """The runtime's process and all below it, deepest first."""
    children: dict[int, list[int]] = defaultdict(list)
    found: list[int] = []
    for folder in host.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(folder.name))
            argv = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
            if b"restore" in argv and argv[-1] == container_id.encode() and b"create" not in argv:
                found.append(int(folder.name))
    ordered: list[int] = []
    while found:
        ordered.append(pid := found.pop())
        found += children.get(pid, [])
    return ordered[::-1]
