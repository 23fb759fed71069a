"""The new container's root as the runtime has mounted it: where it is, and the upper directory below it."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent import errors
from agent.runtimes import commands, mounts
from agent.runtimes.commands import Host

_REMOUNT_S: Final = 3.0
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Paths on the node: the mounted root, and the overlay's upper directory."""

    mounted: str
    upper: str


def find(host: Host, bundle: str, spec: dict[str, Any]) -> Rootfs:
    """The root of the container with this bundle and configuration.

    Raises:
        Refused: it is no overlay with an upper directory; nothing can be put into it exactly.
    """
    path = str((spec.get("root") or {}).get("path") or "rootfs")
    wanted = posixpath.normpath(posixpath.join(bundle, path))
    real = posixpath.realpath(str(host.path(wanted))) if str(host.root) == "/" else wanted
    for mount in reversed(mounts.of_process(host, 1)):
        if mount.point in (wanted, real):
            for option in mount.super_options:
                if mount.kind == "overlay" and option.startswith("upperdir=/"):
                    return Rootfs(mount.point, option.removeprefix("upperdir="))
            break
    raise errors.Refused(
        f"The container's root {wanted} is not an overlay with an upper directory; use the overlay snapshotter.",
        code=errors.RESTORE_FAILED,
    )


async def refresh(host: Host, bundle: str, spec: dict[str, Any]) -> None:
    """Have the mounted overlay forget the names that it has seen: its upper directory was changed below it.

    The kernel drops them on a remount by mount(2); the newer interface, which libmount would take, refuses that.

    Raises:
        CommandFailed: it could not be remounted.
    """
    mounted = find(host, bundle, spec).mounted
    old_interface = {"LIBMOUNT_FORCE_MOUNT2": "always"}
    argv = ["mount", "-o", "remount", mounted]
    done = await commands.run(host, argv, timeout_s=_REMOUNT_S, env=old_interface)
    done.check(f"The container's root {mounted} can't be read anew.")


def have_file(mounted: Path, name: str, before: Callable[[], None]) -> None:
    """Have a file ``name`` (or anything of that name) below ``mounted``, an empty one if there is none; blocks.

    Args:
        before: called before it is made.

    Raises:
        OSError: it can't be made; a symbolic link is in the way, for one.
    """
    *above, last = [part for part in name.split("/") if part]
    folder = os.open(mounted, _FOLDER)
    try:
        for part in above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            below = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        try:
            os.stat(last, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            before()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(last, flags, 0o644, dir_fd=folder))
    finally:
        os.close(folder)


def namespace(spec: dict[str, Any], kind: str) -> str:
    """The path of the pod's namespace of a kind; "" when the container has the node's or one of its own."""
    for one in (spec.get("linux") or {}).get("namespaces") or ():
        if one.get("type") == kind:
            return str(one.get("path") or "")
    return ""
