"""The archive that a container runtime writes (engines ``cri`` and ``kubelet``), made our folder of parts.

Source: containerd, internal/cri/server/container_checkpoint_linux.go, and CRI-O's
CheckpointContainer: a plain tar; containerd's rootfs-diff.tar is gzip in spite of its name.
"""

from __future__ import annotations

import errno
import gzip
import json
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Final

from agent import errors
from agent.checkpoint.consumed import Consumed
from agent.checkpoint.plan import DumpTarget
from agent.formats import layout
from agent.runtimes import criu
from agent.runtimes.commands import Host

# the rest (config.dump, spec.dump, status.dump) is written by us, the same for every engine
_TAKEN: Final = frozenset(
    {layout.DUMP_LOG, layout.STATS_DUMP, layout.CONTAINER_LOG, "status", "bind.mounts"}
)
_CONTAINERD: Final = "/var/lib/containerd/io.containerd.grpc.v1.cri"
_LOG: Final = re.compile(r"path= ?(/\S+\.log)")
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 20
_CONFIG_BYTES: Final = 1 << 20


def unpack(archive: Path, place: Path) -> str:
    """Move the members of ``archive`` that belong to a checkpoint into ``place``. Blocks.

    What was moved is given back to the disk on the way, so that the memory is there only once.

    Returns:
        The id of the container that it is of; empty when it does not say.

    Raises:
        Broken: it is no checkpoint archive.
    """
    container_id = ""
    try:
        with Consumed(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
            for member in members:
                members.members = []  # type: ignore[attr-defined] # memory would grow otherwise
                content = members.extractfile(member) if member.isreg() else None
                if content and member.name == layout.CONFIG_DUMP:
                    container_id = _id_in(content.read(_CONFIG_BYTES))
                elif content:
                    _take(PurePosixPath(member.name), content, place)
    except (tarfile.TarError, OSError) as cause:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.Refused(
                "The node's disk became full while the checkpoint was put together.",
                code=errors.INSUFFICIENT_STORAGE,
            ) from cause
        raise errors.Broken(
            "The container runtime wrote an archive that can't be read.",
            code=errors.CHECKPOINT_FAILED,
            details=str(cause),
        ) from cause
    return container_id


def _id_in(config: bytes) -> str:
    """Source: checkpointctl's metadata, ContainerConfig: ``id``."""
    try:
        return str(json.loads(config).get("id") or "")
    except (ValueError, AttributeError):
        return ""


def _take(name: PurePosixPath, content: IO[bytes], place: Path) -> None:
    match name.parts:
        case (layout.CHECKPOINT_DIR, base) if base not in ("..", "."):
            _write(content, place / layout.CHECKPOINT_DIR / base)
        case (layout.ROOTFS_DIFF,):
            _write_plain(content, place / layout.ROOTFS_DIFF)
        case (base,) if base in _TAKEN:
            _write(content, place / base)


def _write(content: IO[bytes], target: Path) -> None:
    target.parent.mkdir(exist_ok=True, mode=0o700)
    with target.open("wb") as out:
        shutil.copyfileobj(content, out, _CHUNK)


def _write_plain(content: IO[bytes], target: Path) -> None:
    """As ``_write``, uncompressed: a layer is compressed once, and as a layer."""
    partial = target.with_name(target.name + ".tmp")
    _write(content, partial)
    with partial.open("rb") as raw:
        packed = raw.read(len(_GZIP)) == _GZIP
    if packed:
        with gzip.open(partial) as plain:
            _write(plain, target)  # type: ignore[arg-type] # GzipFile reads like any file
        partial.unlink()
    else:
        partial.replace(target)


class TryAgain(errors.CommandFailed):
    """A dump that failed by what was going on in the container at that moment."""


def explained(
    host: Host, failure: errors.CommandFailed, target: DumpTarget
) -> errors.CommandFailed:
    """``failure`` of the container runtime with CRIU's cause, from the log that it points to.

    Returns:
        TryAgain where the cause is one that passes.
    """
    named = _LOG.search(failure.log_tail)
    places = [named[1]] if named else []
    places.append(f"{_CONTAINERD}/containers/{target.container_id}/{layout.DUMP_LOG}")
    logs = (criu.read_log(host, place) for place in places)
    found = next((cause for log in logs if (cause := criu.cause(log))), None)
    name = target.container_name
    message = f"The container runtime could not dump container {name}; it runs on."
    details = failure.log_tail
    if found:
        message = f"Container {name} could not be dumped: {found.sentence}"
        details = "\n".join((*found.lines, failure.log_tail))
    kind = TryAgain if found and found.retry else errors.CommandFailed
    error = kind(message, argv=failure.argv, status=failure.status, log_tail=details)
    error.code = errors.CHECKPOINT_FAILED
    return error
