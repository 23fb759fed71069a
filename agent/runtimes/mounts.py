"""Where a container's files lie on the node, read from its mount table.

Source: proc(5), /proc/<pid>/mountinfo; the kernel's overlayfs documentation for its options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.runtimes.commands import Host


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
