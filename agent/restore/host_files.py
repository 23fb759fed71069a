"""Whether files of the node's own (hostPath) that a checkpointed process had open are here: CRIU would fail at them."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterable

from agent.formats.fingerprint import HostFile
from agent.formats.template import MountFact
from agent.runtimes.commands import Host


def obstacle(host: Host, wanted: Iterable[HostFile], mounts: tuple[MountFact, ...]) -> str:
    """The first of ``wanted`` that is missing or another, as one sentence; "" when all are there. Blocks.

    Args:
        host: this node.
        wanted: the checkpoint's.
        mounts: of the new container.
    """
    for file in wanted:
        place = _place(file.path, mounts)
        if place is not None and (why := _difference(host, file, place)):
            return (
                f"it had {file.path} open, of a hostPath or subPath volume, and that {why} on this node; keep "
                "what it has open in an emptyDir, or restore it where that file is as it was"
            )
    return ""


def _place(path: str, mounts: tuple[MountFact, ...]) -> str | None:
    """The node's name of the container's ``path``; None: it is in none of the node's own folders."""
    above = [one for one in mounts if f"{path}/".startswith(one.destination.rstrip("/") + "/")]
    mount = max(above, key=lambda one: len(one.destination), default=None)
    if (
        mount is None
        or not (mount.kind == "host" or mount.sub_path)
        or posixpath.normpath(path) != path
    ):
        return None
    return mount.source.rstrip("/") + path.removeprefix(mount.destination.rstrip("/"))


def _difference(host: Host, file: HostFile, place: str) -> str:
    try:
        seen = host.path(place).lstat()
    except OSError:
        return "does not exist"
    if file.size_bytes is None:
        return "" if stat.S_ISDIR(seen.st_mode) else "is no folder"
    if not stat.S_ISREG(seen.st_mode):
        return "is no file"
    if seen.st_size != file.size_bytes:
        return f"has another size ({seen.st_size} bytes, not {file.size_bytes})"
    return ""
