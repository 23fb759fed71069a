"""What was already brought back into a pod: a container once, a volume once, whatever happens later.

Empty files, one folder for each sandbox; they live with the node's /run, as sandboxes do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.runtimes.commands import Host


class Ledger:
    """Marks below one folder. Small files: its methods don't block for long."""

    def __init__(self, host: Host, folder: str) -> None:
        self._host = host
        self._on_node = folder
        self._folder = host.path(folder)

    def on_node(self, sandbox_id: str, mark: str) -> str:
        """The node's path of ``mark``, set or not (so that undoing can remove it)."""
        return f"{self._on_node}/{sandbox_id}/{mark.replace('/', '_')}"

    def _file(self, sandbox_id: str, mark: str) -> Path:
        return self._host.path(self.on_node(sandbox_id, mark))

    def has(self, sandbox_id: str, mark: str) -> bool:
        """Whether ``mark`` was set in this sandbox."""
        return self._file(sandbox_id, mark).exists()

    def set(self, sandbox_id: str, mark: str) -> None:
        """Set ``mark``; setting it twice is harmless."""
        file = self._file(sandbox_id, mark)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch()

    def sandboxes(self) -> Iterator[str]:
        """The sandboxes that have marks."""
        if self._folder.is_dir():
            yield from (entry.name for entry in self._folder.iterdir() if entry.is_dir())

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is gone for good."""
        shutil.rmtree(self._folder / sandbox_id, ignore_errors=True)
