"""What processes watch by inotify, and by which names: CRIU can't make names of overlayfs' handles itself.

Source: proc_pid_fdinfo(5), inotify entries; linux/kdev_t.h, ``MINORBITS``; CRIU's irmap.c, which compares device and
inode number as lstat gives them.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from agent.runtimes import mounts
from agent.runtimes.commands import Host

WITHIN_S: Final = 5.0  # of looking for names, before the freeze
_MARK: Final = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+) sdev:([0-9a-f]+) ", re.MULTILINE)
_MINOR_BITS: Final = 20


@dataclass(frozen=True, slots=True)
class Mark:
    """A file or folder that is watched, by its device and inode number."""

    device: int
    inode: int


def marks(host: Host, pids: Iterable[int]) -> frozenset[Mark]:
    """What ``pids`` watch."""
    return frozenset(mark for pid in pids for mark in _of_process(host, pid))


def _of_process(host: Host, pid: int) -> Iterator[Mark]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for entry in list(host.path(f"/proc/{pid}/fd").iterdir()):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(entry) != "anon_inode:inotify":  # noqa: PTH115 - thousands of them
                    continue
                told = host.path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                for inode, device in _MARK.findall(told):
                    number = int(device, 16)
                    major, minor = number >> _MINOR_BITS, number & ((1 << _MINOR_BITS) - 1)
                    yield Mark(os.makedev(major, minor), int(inode, 16))


def names(
    host: Host, pid: int, wanted: frozenset[Mark], within_s: float = WITHIN_S
) -> dict[Mark, str]:
    """The paths of ``wanted``, as process ``pid`` sees them; those without one are left out. Blocks.

    No link is followed, and of the mounts only those that something wanted lies in are searched.
    """
    devices = {mark.device for mark in wanted}
    found: dict[Mark, str] = {}
    deadline = time.monotonic() + within_s
    try:
        table = mounts.of_process(host, pid)
    except OSError:
        return found
    for mount in table:
        major, _, minor = mount.device.partition(":")
        if os.makedev(int(major), int(minor)) not in devices:
            continue
        for path, mark in _below(host, pid, mount.point, devices):
            if mark in wanted:
                found.setdefault(mark, path)
            if len(found) == len(wanted) or time.monotonic() > deadline:
                return found
    return found


def _below(host: Host, pid: int, point: str, devices: set[int]) -> Iterator[tuple[str, Mark]]:
    """Everything from ``point`` down, the upper levels first."""
    root = str(
        host.path(f"/proc/{pid}/root")
    )  # a Path would lose the slash that leads through this link
    waiting = deque([point])
    while waiting:
        path = waiting.popleft()
        try:
            seen = os.lstat(root + path)
        except OSError:
            continue
        yield path, Mark(seen.st_dev, seen.st_ino)
        if seen.st_dev not in devices or not stat.S_ISDIR(seen.st_mode):
            continue
        with contextlib.suppress(OSError), os.scandir(root + path) as entries:
            waiting.extend(f"{path.rstrip('/')}/{entry.name}" for entry in entries)
