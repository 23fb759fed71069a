"""Commands in running containers by the OCI runtime itself, for the time when the CRI runtime does not offer it yet.

While a container is being started the CRI runtime refuses ``ExecSync``. What a command writes is not read: it may hold
secrets, and a child that it leaves behind would keep a pipe open.

Source: runc(8) and crun(1), exec: ``--process FILE`` (the OCI configuration's ``process``), ``--pid-file FILE``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Final

from agent import errors
from agent.runtimes import commands
from agent.runtimes.commands import Host
from agent.runtimes.runc import OciRuntime

FOLDER: Final = "/run/snap/state"
_QUIET: Final = 'exec "$@" >/dev/null 2>&1'
_KILL_S: Final = 5.0
_NOT_STARTED: Final = (126, 127, 255)  # runc's own statuses, when it says why in its log
_REASON_CHARS: Final = 300


async def run(oci: OciRuntime, container_id: str, process: bytes, timeout_s: float) -> str:
    """Run ``process`` (JSON) in a container to its end; one that takes too long is killed with its group.

    Returns:
        Why that was no success, as one sentence; "" when it ended with status 0.

    Raises:
        CommandFailed: the runtime can't be started.
        OSError: the node's files can't be written.
    """
    base = f"{FOLDER}/{container_id}.exec"
    files = [oci.host.path(f"{base}-{name}") for name in ("process", "pid", "log")]
    argv = [oci.binary, "--root", oci.root, "--log", f"{base}-log", "--log-format", "json"]
    argv += ["exec", "--process", f"{base}-process", "--pid-file", f"{base}-pid", container_id]
    ended = False
    try:
        await asyncio.to_thread(_write, files[0], process)
        shell = ["sh", "-c", _QUIET, "sh"]
        done = await commands.run(oci.host, [*shell, *argv], timeout_s=timeout_s)
        ended = True
        return _sentence(done.status, files[2])
    except errors.Retryable:
        return f"Its command did not end within {timeout_s:g} s and was killed."
    finally:
        if not ended:
            await commands.finish(_kill_group(oci.host, container_id, files[1]), _KILL_S)
        for file in files:
            file.unlink(missing_ok=True)


async def kill(host: Host, container_id: str, pid: int, *, group: bool = False) -> None:
    """Kill a process of the container, or all of its process group; never a stranger with a pid used again.

    Raises:
        CommandFailed, Retryable: ``kill`` can't be run on the node.
    """
    try:
        cgroup = host.path(f"/proc/{pid}/cgroup").read_text()
    except OSError:  # it has ended
        return
    if pid > 1 and container_id in cgroup:
        victim = f"-{pid}" if group else f"{pid}"
        await commands.run(host, ["kill", "-KILL", "--", victim], timeout_s=_KILL_S)


async def _kill_group(host: Host, container_id: str, pid_file: Path) -> None:
    """End a command whose runtime was killed: it leads a session of its own, which the runtime made for it."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(await asyncio.to_thread(pid_file.read_text))
        await kill(host, container_id, pid, group=True)


def _write(file: Path, text: bytes) -> None:
    """For root's eyes only: the process's environment may hold secrets."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(text)


def _sentence(status: int, log: Path) -> str:
    """What ``status`` means; "" for a success."""
    if status == 0:
        return ""
    said = _last_of(log) if status in _NOT_STARTED else ""
    return f"Its command could not be run: {said}." if said else f"Its command ended with {status}."


def _last_of(log: Path) -> str:
    """The last message in the runtime's own log, where only the runtime writes."""
    try:
        lines = log.read_text(errors="replace").splitlines()
        said = json.loads(lines[-1])["msg"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return str(said)[:_REASON_CHARS].rstrip(". ")
