"""Memory of the node as a place for files: how much there is, a tmpfs made of it and taken away again.

Source: tmpfs(5); proc_meminfo(5), MemAvailable; the kernel's cgroup documentation (v1 memory.rst:
memory.limit_in_bytes; v2: memory.max). A tmpfs's pages are charged to the cgroup of who writes them
first and can't be written back where there is no swap.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from agent.runtimes import commands, detached
from agent.runtimes.commands import Host

_CALL_S: Final = 20.0
_log = logging.getLogger(__name__)
_CGROUPS: Final = "/sys/fs/cgroup"
_FILES: Final = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
# in a mount namespace of its own the folder below the tmpfs can be reached, and all of it ends with the copy
_COPY: Final = r"""
set -eu
umask 077
place=$1 held=$2
mkdir -p "$held"
mount --bind "$place" "$held"
umount "$place"
find "$place" -mindepth 1 -delete
for entry in "$held"/*; do
  [ -e "$entry" ] || continue
  cp --archive --sparse=always -- "$entry" "$place/"
done
sync -- "$place"/* "$place"
"""


def memory(host: Host) -> tuple[int, int]:
    """(all of the node's memory, what of it programs could still get), in bytes."""
    text = host.path("/proc/meminfo").read_text()
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE))
    return int(found.get("MemTotal", 0)) << 10, int(found.get("MemAvailable", 0)) << 10


def group_room(host: Host) -> int | None:
    """What the cgroup of our programs on the node may still use; None: it has no limit.

    A file cache that it could give back counts as used.
    """
    rooms = [
        room
        for tree in (_CGROUPS, f"{_CGROUPS}/memory")
        for folder in (tree, f"{tree}/{detached.CGROUP}")
        for names in _FILES
        if (room := _room(host, folder, *names)) is not None
    ]
    return min(rooms, default=None)


def _room(host: Host, folder: str, limit_name: str, used_name: str) -> int | None:
    try:
        limit = host.path(f"{folder}/{limit_name}").read_text().strip()
        used = int(host.path(f"{folder}/{used_name}").read_text())
    except (OSError, ValueError):
        return None
    total = memory(host)[0]
    if not limit.isdigit() or int(limit) >= total:  # "max"; v1 writes a very large number
        return None
    return max(int(limit) - used, 0)


def is_mounted(host: Host, place: str) -> bool:
    """Whether something is mounted at the node's folder ``place``, as seen from here."""
    here = host.path(place)
    try:
        return here.stat().st_dev != here.parent.stat().st_dev
    except OSError:
        return False


async def mount(host: Host, place: str, size_bytes: int) -> str:
    """Mount a tmpfs of at most ``size_bytes`` at the node's folder ``place``, for root alone.

    Returns:
        Why it is not there, or can't be reached from here; nothing stays mounted then. Empty: it is.
    """
    options = f"size={size_bytes},mode=0700,nosuid,nodev,noexec"
    argv = ["mount", "-t", "tmpfs", "-o", options, "snap-checkpoint", place]
    done = await commands.run(host, argv, timeout_s=_CALL_S)
    if done.status:
        return f"a tmpfs can't be mounted: {done.stderr_tail.strip()[-200:]}"
    if is_mounted(host, place):
        return ""
    unmount(host, place)
    return "what is mounted on the node can't be seen by the agent"


def remove(host: Host, place: str) -> None:
    """Unmount the tmpfs at ``place`` and give its memory back; who reads a file of it reads on. Blocks.

    Its files are removed once it is out of sight: a container that was started meanwhile with the node's
    folders in it may hold the mount for as long as it runs.
    """
    try:
        held = os.open(host.path(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        unmount(host, place)
        return
    try:
        unmount(host, place)
        if os.fstat(held).st_dev != host.path(place).stat().st_dev:
            for name in os.listdir(held):  # noqa: PTH208 - by descriptor: its path is another folder now
                os.unlink(name, dir_fd=held)
    except OSError as cause:
        _log.warning("memory of %s is not given back yet: %s", place, cause)
    finally:
        os.close(held)


def unmount(host: Host, place: str) -> None:
    """Unmount what is at ``place``; nothing happens without one. Blocks."""
    argv = [*host.prefix, "umount", "--lazy", place]
    subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_CALL_S,
        env=commands.environment(),
    )


async def copy_below(host: Host, place: str, timeout_s: float) -> None:
    """Copy what the tmpfs at ``place`` holds into the folder that it covers, and have it on the disk.

    The tmpfs stays on top: who looks at ``place`` sees no difference, also once it is unmounted.
    Runs of zeros become holes.

    Raises:
        CommandFailed: it could not be copied; the tmpfs is as it was.
        Retryable: it took too long.
    """
    held = str(Path("/run/snap") / f"held-{Path(place).parent.name}")
    argv = ["unshare", "--mount", "sh", "-c", _COPY, "sh", place, held]
    try:
        done = await commands.run(host, argv, timeout_s=timeout_s)
    finally:
        with contextlib.suppress(OSError):  # it was never made
            host.path(held).rmdir()
    done.check("A checkpoint could not be moved from memory to the disk.")
