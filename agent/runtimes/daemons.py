"""The node's container runtime as a process: how it was started, and how it is started anew.

Source: proc(5); systemctl(1), sd_booted(3) for whether systemd is the node's init.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent import errors
from agent.runtimes import commands, processes
from agent.runtimes.commands import Host

_RESTART_S: Final = 90.0
_BUSY: Final = ("criu", "snap-dump", "snap-runc", "snap-crun")


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon of the node: its arguments, and the systemd unit it belongs to ("": none)."""

    pid: int
    argv: tuple[str, ...]
    unit: str

    def option(self, *names: str) -> str:
        """The value of the first option of ``names`` that it was started with."""
        for at, argument in enumerate(self.argv):
            name, sign, value = argument.partition("=")
            if name in names:
                return value if sign else "".join(self.argv[at + 1 : at + 2])
        return ""


def find(host: Host, name: str) -> Daemon | None:
    """The daemon ``name`` of the node itself, not one inside a container. Blocks, shortly."""
    ours = processes.namespace(host, 1, "pid")  # a service may have mounts of its own
    found = [
        _daemon(host, pid)
        for pid, comm in _commands(host)
        if comm == name and processes.namespace(host, pid, "pid") == ours
    ]
    return min(found, key=lambda one: one.pid) if found else None


def busy(host: Host) -> str:
    """What works on a container just now, by the name of its program; "": nothing. Blocks, shortly."""
    return next((comm for _, comm in _commands(host) if comm in _BUSY), "")


def restart_argv(host: Host, daemon: Daemon, command: str) -> tuple[str, ...]:
    """What starts ``daemon`` anew: ``command`` if there is one, else systemd.

    Raises:
        Refused: there is no way to.
    """
    if command:
        return tuple(shlex.split(command))
    if daemon.unit and host.path("/run/systemd/system").is_dir():
        return ("systemctl", "restart", daemon.unit)
    raise errors.Refused(
        "The container runtime would have to be started anew and systemd does not run it; set "
        "SNAP_RUNTIME_RESTART to the command that does.",
        code=errors.CONFLICT,
    )


async def restart(host: Host, daemon: Daemon, command: str) -> None:
    """Start ``daemon`` anew.

    Raises:
        Refused: there is no way to. CommandFailed, Retryable: it did not work.
    """
    argv = restart_argv(host, daemon, command)
    done = await commands.run(host, argv, timeout_s=_RESTART_S)
    done.check("The container runtime could not be started anew.")


def _commands(host: Host) -> Iterator[tuple[int, str]]:
    for entry in host.path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "comm").read_text().strip()
            except OSError:  # it ended meanwhile
                continue


def _daemon(host: Host, pid: int) -> Daemon:
    proc = host.path(f"/proc/{pid}")
    try:
        argv = (proc / "cmdline").read_bytes().decode(errors="replace").split("\0")
        group = (proc / "cgroup").read_text()
    except OSError:
        return Daemon(pid, (), "")
    unit = re.search(r"/([^/\n]+\.service)$", group, re.MULTILINE)
    return Daemon(pid, tuple(argv[:-1]), unit[1] if unit else "")
