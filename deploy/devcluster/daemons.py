"""A program of the control plane on this machine: started, found again, killed, started again."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from deploy.devcluster.layout import Layout
from deploy.devnode import processes
from deploy.devnode.processes import Launch


@dataclass(frozen=True, slots=True)
class Daemon:
    """One program. It ends with the instance; a kill leaves its data."""

    layout: Layout
    name: str
    argv: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What it wrote."""
        return self.layout.instance.state / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return self.layout.folder / f"{self.name}.json"

    def start(self) -> None:
        """Start it; whoever needs it waits for what it does."""
        process = processes.start(Launch(self.argv, self.layout.cgroup, self.log, _environment()))
        started = processes.start_time(process.pid)
        self._record.write_text(json.dumps({"pid": process.pid, "started": started}))

    def kill(self) -> None:
        """``kill -9``; ``start`` brings it back with what it had stored."""
        if self.is_running:
            pid, started = self._seen()
            os.kill(pid, signal.SIGKILL)
            processes.wait_gone(pid, started)

    def pause(self) -> None:
        """Stop it in its tracks: its connections stay and nobody answers."""
        self._signal(signal.SIGSTOP)

    def proceed(self) -> None:
        """Undo ``pause``."""
        self._signal(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return processes.is_running(*self._seen())

    def _seen(self) -> tuple[int, str]:
        try:
            seen = json.loads(self._record.read_text())
        except FileNotFoundError:
            return 0, ""
        return seen["pid"], seen["started"]

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:
            os.kill(self._seen()[0], number)


def _environment() -> dict[str, str]:
    """Nothing of this machine's proxies and clusters must reach the programs."""
    unwanted = ("_PROXY", "_proxy", "KUBECONFIG", "KUBERNETES_", "ETCD_", "GODEBUG")
    return {k: v for k, v in os.environ.items() if not any(word in k for word in unwanted)}
