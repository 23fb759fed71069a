"""Files: every process's open descriptors, and the mounts of every mount namespace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from agent.formats.criu_entries import Descriptor, FdType, Mount, OpenFile
from agent.insights import sockets
from agent.insights.bounds import Bounds, Row, clipped
from agent.insights.dump import Dump, Task

_ACCESS: Final = {os.O_RDONLY: "read", os.O_WRONLY: "write", os.O_RDWR: "read and write"}
_KINDS: Final = {
    FdType.REG: "file",
    FdType.PIPE: "pipe",
    FdType.FIFO: "fifo",
    FdType.INETSK: "socket",
    FdType.UNIXSK: "socket",
    FdType.PACKETSK: "socket",
    FdType.NETLINKSK: "socket",
    FdType.TTY: "terminal",
    FdType.NS: "namespace",
    FdType.TUNF: "tun",
}
# Source: CRIU, images/mnt.proto (fstype)
FILESYSTEMS: Final = {
    1: "proc",
    2: "sysfs",
    3: "devtmpfs",
    4: "binfmt_misc",
    5: "tmpfs",
    6: "devpts",
    8: "pstore",
    9: "securityfs",
    10: "fusectl",
    11: "debugfs",
    12: "cgroup",
    13: "aufs",
    14: "mqueue",
    15: "fuse",
    17: "overlay",
    18: "autofs",
    19: "tracefs",
    23: "cgroup2",
}


def report(dump: Dump, bounds: Bounds) -> dict[str, Any]:
    """Open files by process, and mounts."""
    found: list[Row] = []
    for task in dump.tasks():
        where = dump.filesystem(task)
        head: Row = {
            "pid": task.pid,
            "command": task.core.command,
            "working_directory": clipped(dump.path(where.cwd_id)) if where else None,
            "root": clipped(dump.path(where.root_id)) if where else None,
        }
        if not bounds.fits(head):
            break
        found.append(head | {"files": bounds.keep(rows(dump, task))})
    return {"processes": found, "mounts": bounds.keep(map(_mount, dump.mounts()))}


def rows(dump: Dump, task: Task) -> Iterator[Row]:
    """A process's open descriptors."""
    for descriptor in dump.descriptors(task):
        file = dump.files.get(descriptor.file_id)
        row: Row = {
            "fd": descriptor.fd,
            "type": kind(descriptor),
            "path": clipped(path(dump, descriptor, file)),
        }
        if file is not None and file.flags is not None:
            row["access"] = _ACCESS.get(file.flags & os.O_ACCMODE, "unknown")
            row["position"] = file.position
            row["size_bytes"] = file.size_bytes
        yield row


def kind(descriptor: Descriptor) -> str:
    """What a descriptor is of, in a word."""
    return _KINDS.get(_type(descriptor.kind), type_name(descriptor.kind).lower())


def type_name(number: int) -> str:
    """CRIU's own name for a kind of descriptor."""
    found = _type(number)
    return found.name if found is not FdType.UND else f"TYPE_{number}"


def path(dump: Dump, descriptor: Descriptor, file: OpenFile | None) -> str:
    """What /proc/<pid>/fd/<fd> would point to."""
    if file is None:
        return ""
    if file.path:
        return file.path
    if file.path_id and (named := dump.path(file.path_id)):
        return named
    if file.pipe_id:
        return f"pipe:[{file.pipe_id}]"
    if file.memfd_inode is not None:
        inode = dump.memfds.get(file.memfd_inode)
        return f"/memfd:{inode.name}" if inode else "/memfd:"
    if file.socket is not None:
        return sockets.words(file.socket)
    return f"anon_inode:[{type_name(descriptor.kind).lower()}]"


def filesystem(mount: Mount) -> str:
    """The type of a mount's file system."""
    return mount.filesystem or FILESYSTEMS.get(mount.kind, "unknown")


def _type(number: int) -> FdType:
    try:
        return FdType(number)
    except ValueError:
        return FdType.UND


def _mount(found: tuple[int, Mount]) -> Row:
    namespace, mount = found
    return {
        "destination": clipped(mount.mountpoint),
        "filesystem": filesystem(mount),
        "source": clipped(mount.source),
        "root": clipped(mount.root),
        "options": clipped(mount.options),
        "external": clipped(mount.external) or None,
        "mount_id": mount.mount_id,
        "parent_id": mount.parent_id,
        "namespace_id": namespace,
    }
