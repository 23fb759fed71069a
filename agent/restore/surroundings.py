"""What is new around a restored process, told to it: its pod, address, node; as variables and as a file.

The file is written into the new container's root while nothing runs there yet. It lies in the overlay's upper
directory, so that a root which is read-only to the container has it too.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.restore import hook_running, rootfs
from agent.restore.hook_running import Hooked
from agent.restore.post_restore import Hook
from agent.restore.preparation import NewContainer
from agent.restore.undoing import UndoList
from agent.runtimes.commands import Host

FILE: Final = "restored.json"
# The first that no mount of the container hides and no link leads away from.
FOLDERS: Final = ("/run/snap", "/etc/snap", "/snap")
VARIABLE: Final = "SNAP_RESTORED_FILE"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a container came back. ``checkpoint`` is its image by digest, ``restored_at`` RFC 3339 UTC.

    Attributes:
        pod_ips: the pod's own addresses, IPv4 first; none where it has the node's.
    """

    pod_name: str
    namespace: str
    pod_uid: str
    pod_ips: tuple[str, ...]
    node: str
    container: str
    checkpoint: str
    restored_at: str

    def document(self) -> dict[str, object]:
        """What the file says, and the body of a POST."""
        return {
            "pod_name": self.pod_name,
            "namespace": self.namespace,
            "pod_uid": self.pod_uid,
            "pod_ip": self.pod_ips[0] if self.pod_ips else "",
            "pod_ips": list(self.pod_ips),
            "node": self.node,
            "container": self.container,
            "checkpoint": self.checkpoint,
            "restored_at": self.restored_at,
        }

    def variables(self, file: str) -> dict[str, str]:
        """The same for a command's environment; ``file``: where the file is in the container, "" for nowhere."""
        plain = {k: v for k, v in self.document().items() if isinstance(v, str)}
        named = {f"SNAP_{name.upper()}": value for name, value in plain.items()}
        return named | ({VARIABLE: file} if file else {})


@dataclass(frozen=True, slots=True)
class Newcomer:
    """The container that is being prepared, and the hook that it names."""

    host: Host
    new: NewContainer
    hook: Hook


def bring(who: Newcomer, told: Surroundings) -> Hooked:
    """Write the file, and have the wrapper wait for the hook before ``start`` returns. Blocks.

    Raises:
        OSError: it could not be written.
        Refused: the container's root is no place to write to.
    """
    new = who.new
    root = rootfs.find(who.host, new.bundle, new.spec).mounted
    mounts = [mount.destination for mount in new.template.mounts]
    file = write(who.host, root, mounts, new.undo, told.document())
    waiting = f"{posixpath.dirname(new.conf)}/{new.container_id}.hook"
    new.undo.remove(waiting)
    patience_s = math.ceil(who.hook.timeout_s + hook_running.BESIDE_S)
    who.host.path(waiting).write_text(f"{patience_s}\n")
    return Hooked(hook=who.hook, variables=told.variables(file), document=told.document())


def own_addresses(found: Iterable[str]) -> tuple[str, ...]:
    """Those that others reach a pod at: neither loopback nor link-local, IPv4 first."""
    addresses = [ipaddress.ip_address(one) for one in found]
    kept = [one for one in addresses if not (one.is_loopback or one.is_link_local)]
    return tuple(str(one) for one in sorted(kept, key=lambda one: (one.version, int(one))))


def write(
    host: Host,
    root: str,
    mounts: Iterable[str],
    undo: UndoList,
    document: Mapping[str, object],
) -> str:
    """Write the file below ``root`` (the mounted root on the node) and say in ``undo`` how it goes. Blocks.

    Args:
        mounts: where the container will have something mounted.

    Returns:
        Its path in the container; "" when there is no place for it.

    Raises:
        OSError: it could not be written.
    """
    hidden = [one.rstrip("/") for one in mounts]
    text = json.dumps(document, indent=2).encode() + b"\n"
    top = os.open(host.path(root), _FOLDER)
    try:
        for folder in FOLDERS:
            path = f"{folder}/{FILE}"
            if any(one and f"{path}/".startswith(f"{one}/") for one in hidden):
                continue
            with contextlib.ExitStack() as opened:
                descriptor = _folder(top, root, folder, undo, opened)
                if descriptor is not None:
                    _replace(descriptor, f"{root}{path}", undo, text)
                    return path
        return ""
    finally:
        os.close(top)


def _folder(
    top: int, root: str, folder: str, undo: UndoList, opened: contextlib.ExitStack
) -> int | None:
    """A descriptor of ``folder``, made where it is missing; None: something else is in the way."""
    descriptor, path = top, root
    for part in folder.strip("/").split("/"):
        path = f"{path}/{part}"
        try:
            below = os.open(part, _FOLDER, dir_fd=descriptor)
        except FileNotFoundError:
            undo.remove(path)
            os.mkdir(part, dir_fd=descriptor)
            below = os.open(part, _FOLDER, dir_fd=descriptor)
            os.fchmod(below, 0o755)
        except OSError:  # a link, or no folder
            return None
        opened.callback(os.close, below)
        descriptor = below
    return descriptor


def _replace(folder: int, path: str, undo: UndoList, text: bytes) -> None:
    """Write ``text`` as the file, readable to everyone in the container; an older one came with the checkpoint."""
    undo.remove(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(FILE, dir_fd=folder)
    descriptor = os.open(FILE, _NEW, 0o644, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, 0o644)
        stream.write(text)
