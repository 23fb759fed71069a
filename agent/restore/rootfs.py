"""The new container's root as the runtime has mounted it: where it is, and the upper directory below it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, Final

from agent import errors
from agent.runtimes import commands, mounts
from agent.runtimes.commands import Host

_REMOUNT_S: Final = 3.0


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


def namespace(spec: dict[str, Any], kind: str) -> str:
    """The path of the pod's namespace of a kind; "" when the container has the node's or one of its own."""
    for one in (spec.get("linux") or {}).get("namespaces") or ():
        if one.get("type") == kind:
            return str(one.get("path") or "")
    return ""
