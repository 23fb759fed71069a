"""Where a container's files lie on the node, read from its mount table.

Source: proc(5), /proc/<pid>/mountinfo; the kernel's overlayfs documentation for its options.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import Final

from agent.runtimes.commands import Host

_MOST_LINKS: Final = 40  # as the kernel has it


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of a process's mount table. ``super_options`` are the file system's own."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    point: str
    options: tuple[str, ...]
    kind: str
    source: str
    super_options: tuple[str, ...]


def of_process(host: Host, pid: int) -> tuple[MountPoint, ...]:
    """The mounts that process ``pid`` of the node sees.

    Raises:
        OSError: there is no such process.
    """
    return parse(host.path(f"/proc/{pid}/mountinfo").read_text())


def parse(mountinfo: str) -> tuple[MountPoint, ...]:
    """The mounts of a mountinfo file."""
    return tuple(_line(line) for line in mountinfo.splitlines() if " - " in line)


def _line(line: str) -> MountPoint:
    before, after = line.split(" - ", 1)
    mount_id, parent_id, device, root, point, options = before.split(" ")[:6]
    kind, source, supers = (*after.split(" "), "", "")[:3]
    return MountPoint(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=device,
        root=_plain(root),
        point=_plain(point),
        options=tuple(options.split(",")),
        kind=kind,
        source=_plain(source),
        super_options=tuple(_plain(option) for option in supers.split(",")),
    )


def _plain(text: str) -> str:
    """``text`` without the kernel's octal escapes (space is ``\\040``)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def place_of(host: Host, pid: int, path: str) -> str:
    """Where ``path`` is in the file system of process ``pid``, links of it followed within it; blocks.

    Nothing but links is read: whatever the process changes meanwhile, only the answer can be wrong.

    Raises:
        OSError: there is no such process, or its links go in a circle.
    """
    root = host.path(f"/proc/{pid}/root")
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    place: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            place[-1:] = []
            continue
        try:
            target = str((root / "/".join([*place, part])).readlink())
        except OSError:  # no link
            place.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            place = []
        todo += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
    return "/" + "/".join(place)


def upper_directory(mounts: tuple[MountPoint, ...]) -> str | None:
    """The node's path of the upper directory of ``/``; None: ``/`` is no overlay with one."""
    for mount in reversed(mounts):
        if mount.point == "/":
            if mount.kind != "overlay":
                return None
            for option in mount.super_options:
                if option.startswith("upperdir=/"):
                    return option.removeprefix("upperdir=")
            return None
    return None
