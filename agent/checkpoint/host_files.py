"""Files of the node's own (hostPath) that a container has open: a restore needs them where it comes back."""

from __future__ import annotations

import stat

from agent.formats.fingerprint import HostFile
from agent.formats.template import MountFact
from agent.runtimes.commands import Host


def is_below(path: str, mount: MountFact) -> bool:
    """Whether the container's ``path`` lies in ``mount``."""
    return f"{path}/".startswith(mount.destination.rstrip("/") + "/")


def find(
    host: Host, pid: int, mounts: tuple[MountFact, ...], used: frozenset[str]
) -> tuple[HostFile, ...]:
    """Those of ``used`` that lie in ``mounts``, regular files and folders, as process ``pid`` sees them. Blocks."""
    found = []
    for path in sorted(used):
        if not any(is_below(path, mount) for mount in mounts):
            continue
        try:
            seen = host.path(f"/proc/{pid}/root{path}").lstat()
        except OSError:  # deleted, and still open: CRIU keeps its content
            continue
        if stat.S_ISREG(seen.st_mode):
            found.append(HostFile(path=path, size_bytes=seen.st_size))
        elif stat.S_ISDIR(seen.st_mode):
            found.append(HostFile(path=path))
    return tuple(found)
