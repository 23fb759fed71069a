"""The daemon that brings a lazily restored container its memory: started, watched, taken over from an earlier agent.

``snap-lazy.sh`` runs it, outlives this agent, and kills the container should the daemon die before the last page.
This side starts it, hears how it ended, and does what the script would do should the script itself have been killed.
Files in the container's work folder: ``lazy.plan`` and ``lazy.json`` are ours, the rest is the script's.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from agent import errors
from agent.restore.outcome import Outcome
from agent.runtimes import commands, criu, detached
from agent.runtimes.commands import Host

SCRIPT: Final = "/opt/snap/bin/snap-lazy"
SOCKET: Final = (
    "lazy-pages.socket"  # Source: criu/uffd.c; runc's CRIU looks for it in its work folder
)
STRAY_S: Final = 120.0  # after that nobody will restore with it any more
_BEGIN_S: Final = 3.0
_LOOK_S: Final = 0.003
_GRACE_S: Final = 2.0
_KILL_S: Final = 60.0


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """One container's memory on its way. Paths are the node's.

    Attributes:
        expected: what became of the container's restore, as far as it is known when it begins.
        state: the path of the wrapper's state files, without their endings.
    """

    container_id: str
    bundle: str
    images: str
    work: str
    state: str
    expected: Outcome


@dataclass(frozen=True, slots=True)
class End:
    """How a transfer ended.

    Attributes:
        outcome: complete, killed (the daemon died, so the container was killed), ended (the container ended by
            itself), abandoned (it was not restored).
        died: whether the daemon died before it had brought everything.
    """

    outcome: str
    died: bool
    status: int
    took_ms: float


async def begin(host: Host, transfer: Transfer) -> None:
    """Have the daemon wait for the restore.

    Raises:
        CommandFailed: it does not; nothing of it is left.
    """
    await asyncio.to_thread(_write, host, transfer)
    log = f"{transfer.work}/lazy.log"
    try:
        await detached.start(host, [SCRIPT, "run", transfer.work], log)
        deadline = asyncio.get_running_loop().time() + _BEGIN_S
        while not host.path(f"{transfer.work}/{SOCKET}").is_socket():
            if end_of(host, transfer) or asyncio.get_running_loop().time() > deadline:
                said = criu.read_log(host, f"{transfer.work}/lazy-pages.log") or criu.read_log(
                    host, log
                )
                raise errors.CommandFailed(
                    "criu lazy-pages did not start on the node.",
                    argv=[SCRIPT],
                    status=None,
                    log_tail=said[-2000:],
                )
            await asyncio.sleep(_LOOK_S)
    except BaseException:
        await commands.finish(abandon(host, transfer), _GRACE_S * 5)
        raise


async def abandon(host: Host, transfer: Transfer) -> None:
    """The container is not restored with it: end the daemon, leave the container alone."""
    with contextlib.suppress(FileNotFoundError):
        host.path(f"{transfer.work}/lazy.off").touch()
    if process := detached.read_pid(host, f"{transfer.work}/lazy.pid"):
        await detached.stop(host, process, grace_s=_GRACE_S)
    forget(host, transfer)


async def look(host: Host, transfer: Transfer) -> End | None:
    """How it ended; None: it goes on.

    With the script killed, the daemon is watched from here: nobody else would see it die.
    """
    if end := end_of(host, transfer):
        return end
    process = detached.read_pid(host, f"{transfer.work}/lazy.pid")
    if process is None or detached.is_alive(host, process):
        return None
    if await asyncio.to_thread(detached.members, host, process):
        return None
    if end := end_of(host, transfer):  # it ended between the two looks
        return end
    await commands.run(host, [SCRIPT, "settle", transfer.work], timeout_s=_KILL_S)
    return end_of(host, transfer)


def end_of(host: Host, transfer: Transfer) -> End | None:
    """What the script wrote when it ended."""
    try:
        text = host.path(f"{transfer.work}/lazy.result").read_text()
        said = dict(line.split("=", 1) for line in text.splitlines())
        took_ms = (int(said["ended_ns"]) - int(said["begun_ns"])) / 1e6
        return End(said["outcome"], said["died"] == "1", int(said["status"]), took_ms)
    except FileNotFoundError:
        return None
    except (KeyError, ValueError):
        return End("killed", died=True, status=-1, took_ms=0.0)


def is_wanted(host: Host, transfer: Transfer) -> bool:
    """Whether the wrapper has begun to restore with it and did not give up."""
    on, off = (host.path(f"{transfer.work}/lazy.{name}") for name in ("on", "off"))
    return on.exists() and not off.exists()


def unfinished(host: Host, work_root: str) -> Iterator[Transfer]:
    """The transfers that nobody has heard the end of. Blocks."""
    for file in sorted(host.path(work_root).glob("*/lazy.json")):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            yield msgspec.json.decode(file.read_bytes(), type=Transfer)


def forget(host: Host, transfer: Transfer) -> None:
    """Its end was heard."""
    host.path(f"{transfer.work}/lazy.json").unlink(missing_ok=True)


def is_arriving(host: Host, work_root: str, container_id: str) -> bool:
    """Whether pages of the container are still on their way: it can't be dumped then, they would be zero."""
    work = host.path(f"{work_root}/{container_id}")
    return (work / "lazy.on").exists() and not (work / "lazy.result").exists()


def install(host: Host) -> None:
    """Have the script on the node, as this agent knows it. Blocks."""
    script = importlib.resources.files(__package__).joinpath("snap-lazy.sh").read_bytes()
    detached.install(host, SCRIPT, script)


def _write(host: Host, transfer: Transfer) -> None:
    install(host)
    work = host.path(transfer.work)
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in [*work.glob("lazy*"), work / SOCKET]:
        left.unlink(missing_ok=True)
    values = {
        "images": transfer.images,
        "bundle": transfer.bundle,
        "id": transfer.container_id,
        "state": transfer.state,
    }
    (work / "lazy.plan").write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    partial = work / "lazy.json.tmp"
    partial.write_bytes(msgspec.json.encode(transfer))
    partial.replace(work / "lazy.json")


def age_s(host: Host, transfer: Transfer) -> float:
    """Since it was begun."""
    try:
        return time.time() - host.path(f"{transfer.work}/lazy.json").stat().st_mtime
    except FileNotFoundError:
        return 0.0
