"""How the node is right now: disk, memory, load. Cheap enough for every heartbeat."""

from __future__ import annotations

from pathlib import Path

import psutil

from agent.node.facts import Vitals


class Pulse:
    """Takes the vitals; keeps what psutil needs to tell a rate from the last reading."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._self = psutil.Process()
        psutil.cpu_percent(interval=None)  # the first reading is the base of the next

    def take(self) -> Vitals:
        """The vitals now. Blocks as long as the data directory's file system does."""
        disk = psutil.disk_usage(str(self._data_dir))
        memory = psutil.virtual_memory()
        return Vitals(
            disk_total_bytes=disk.total,
            disk_free_bytes=disk.free,
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            agent_memory_bytes=self._self.memory_info().rss,
            cpu_percent=psutil.cpu_percent(interval=None),
        )
