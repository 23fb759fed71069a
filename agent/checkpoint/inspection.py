"""What speaks against a checkpoint, found before anything is frozen, each with its remedy."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent import errors
from agent.checkpoint import holdings, host_files, linked, watched
from agent.checkpoint.plan import Copy
from agent.checkpoint.retention import Disk
from agent.checkpoint.targets import Found
from agent.formats import layout, template
from agent.formats.fingerprint import HostFile
from agent.formats.jobs import CheckpointSpec
from agent.formats.template import MountFact, Template
from agent.runtimes import mounts, processes, runc
from agent.runtimes.commands import Host
from agent.runtimes.runc import OciRuntime

CRIU_CONFIG_ANNOTATION: Final = "org.criu.config"
_IMAGES_SLACK: Final = 32 << 20  # CRIU's other images, at most, beside the pages
# Source: the kubelet's volume plug-ins that write an API object's content as files
_FILLED: Final = ("configmap", "secret", "projected", "downward-api")
_HARMLESS_HOST_PATHS: Final = ("/etc/localtime", "/dev/null")


@dataclass(frozen=True, slots=True)
class Inspected:
    """A container that may be dumped.

    Attributes:
        oci: the OCI runtime that holds it; None: unknown here, only its CRI runtime can dump it.
        upper: overlay upper directory on the node; empty when its root is no overlay.
        spec: its OCI configuration as it was started with.
        memory_bytes: what the dump has to write of its memory, at most.
        copies: of files that only stand still in the window, target names relative to the parts.
        volumes: those whose content goes into the archive.
        shm_used: there are files in its /dev/shm.
        addresses: those of its pod that it listens at, by name instead of "any".
        watched: what it watches by inotify, as it sees it.
        host_files: of the node's own, that it has open.
        behind_links: its binds by the places where they really are, and by the names that crun has for them.
    """

    found: Found
    oci: OciRuntime | None
    was_paused: bool
    upper: str
    root_mode: int
    spec: dict[str, Any]
    template: Template
    memory_bytes: int
    files_bytes: int
    copies: tuple[Copy, ...]
    volumes: tuple[MountFact, ...]
    shm_used: bool
    addresses: tuple[str, ...]
    watched: tuple[str, ...]
    host_files: tuple[HostFile, ...]
    warnings: tuple[str, ...]
    behind_links: tuple[tuple[str, str], ...] = ()


async def inspect(host: Host, found: Found, spec: CheckpointSpec) -> Inspected:
    """Look at one container.

    Raises:
        Refused: it can't be dumped or could never be restored; the message says what to do.
    """
    oci = runc.find(host, found.id)
    state, pids = await _looked_up(oci, found)
    oci_spec = await asyncio.to_thread(_oci_spec, host, state.bundle if state else "", found)
    asked = template.from_spec(oci_spec)
    _refuse_by_configuration(found, oci_spec, asked)
    await asyncio.to_thread(holdings.refuse, host, found.name, found.detail.pid, pids)
    upper, root_mode = await asyncio.to_thread(_root, host, found.detail.pid)
    bound = await asyncio.to_thread(processes.bound_addresses, host, pids)
    addresses = tuple(sorted(bound))
    seen = await asyncio.to_thread(watched.find, host, found.name, pids)
    used = await asyncio.to_thread(processes.used_paths, host, pids) | set(seen)
    outside = tuple(one for one in asked.mounts if _is_outside(one) or _is_left_out(one, asked))
    open_there = await asyncio.to_thread(host_files.find, host, found.detail.pid, outside, used)
    copies = _copies(upper, asked, used)
    return Inspected(
        found=found,
        oci=oci,
        was_paused=bool(state) and state.status == "paused" if state else False,
        upper=upper,
        root_mode=root_mode,
        spec=oci_spec,
        template=asked,
        memory_bytes=await asyncio.to_thread(processes.dumped_bytes, host, pids),
        files_bytes=await asyncio.to_thread(_size, host, upper, copies),
        copies=copies,
        volumes=tuple(m for m in asked.mounts if m.kind == "emptydir" or _is_open(m, used)),
        shm_used=await asyncio.to_thread(_is_shm_used, host, copies),
        addresses=addresses,
        watched=seen,
        host_files=open_there,
        warnings=_warnings(spec, [*_bound(found, addresses), *_unsaved(found, asked, open_there)]),
        behind_links=await asyncio.to_thread(linked.binds, host, oci, found.detail.pid, asked),
    )


async def _looked_up(
    oci: runc.OciRuntime | None, found: Found
) -> tuple[runc.State | None, tuple[int, ...]]:
    """The container's state and processes, by two programs at once: someone waits for the checkpoint."""
    if oci is None:
        return None, (found.detail.pid,)
    return await asyncio.gather(oci.state(found.id), oci.pids(found.id))


def _oci_spec(host: Host, bundle: str, found: Found) -> dict[str, Any]:
    """The bundle's config.json (what the OCI runtime was really given), else what CRI tells."""
    try:
        spec = json.loads(host.path(f"{bundle}/config.json").read_bytes()) if bundle else None
    except (OSError, ValueError):
        spec = None
    return spec if isinstance(spec, dict) else found.detail.spec


def _refuse_by_configuration(found: Found, spec: Mapping[str, Any], asked: Template) -> None:
    annotations = {
        **found.sandbox.sandbox.annotations,
        **found.detail.container.annotations,
        **(spec.get("annotations") or {}),
    }
    if CRIU_CONFIG_ANNOTATION in annotations:
        raise errors.Refused(
            f"Pod {found.sandbox.sandbox.name} carries the annotation {CRIU_CONFIG_ANNOTATION}, "
            "which would let it run code as root on the node; remove it."
        )
    if not asked.namespaces:
        raise errors.Refused(f"The runtime does not tell how container {found.name} was set up.")
    if found.sandbox.host_pid or "pid" not in asked.namespaces:
        raise errors.Refused(
            f"Container {found.name} shares the node's process ids (hostPID), which are taken "
            "where it would be restored; run it without hostPID."
        )
    if "user" in asked.namespaces:
        raise errors.Refused(
            f"Container {found.name} has a user namespace (hostUsers: false), which CRIU can't "
            "restore; run it with hostUsers: true."
        )


async def refuse_shared_sysv(host: Host, inspected: tuple[Inspected, ...]) -> None:
    """Refuse when System V memory of a pod is in use by several of its containers.

    Raises:
        Refused: it is; the second restore would find its key taken.
    """
    users = []
    for one in inspected if len(inspected) > 1 else ():
        pids = await one.oci.pids(one.found.id) if one.oci else (one.found.detail.pid,)
        if await asyncio.to_thread(processes.has_sysv_memory, host, pids):
            users.append(one.found.name)
    if len(users) > 1:
        raise errors.Refused(
            f"Containers {', '.join(users)} use System V shared memory of one pod, which can't be "
            "restored for more than one of them; checkpoint one, or use POSIX shared memory."
        )


def _root(host: Host, pid: int) -> tuple[str, int]:
    try:
        upper = mounts.upper_directory(mounts.of_process(host, pid)) or ""
        mode = host.path(f"/proc/{pid}/root/").stat().st_mode & 0o7777
    except OSError as cause:
        raise errors.Refused("The container ended while it was looked at.") from cause
    return (upper if upper and host.path(upper).is_dir() else ""), mode


def _is_open(mount: MountFact, used: frozenset[str]) -> bool:
    """Whether a file of a volume that the kubelet fills is in use: a new pod has others in their place."""
    below = mount.destination.rstrip("/") + "/"
    return mount.kind in _FILLED and any(path.startswith(below) for path in used)


def _copies(upper: str, asked: Template, used: frozenset[str]) -> tuple[Copy, ...]:
    copies = [Copy(source=upper, target="raw/upper.tar", only_used=False)] if upper else []
    seen: set[str] = set()
    for mount in asked.mounts:
        wanted = mount.kind == "emptydir" or _is_open(mount, used)
        if wanted and not mount.sub_path and mount.name not in seen:
            seen.add(mount.name)
            target = f"{layout.VOLUMES_DIR}/{mount.name}.tar"
            copies.append(Copy(source=mount.source, target=target))
        elif mount.destination == "/dev/shm" and mount.kind == "runtime" and mount.source:  # noqa: S108
            copies.append(Copy(source=mount.source, target=layout.SHM_TAR))
    return tuple(copies)


def _is_shm_used(host: Host, copies: tuple[Copy, ...]) -> bool:
    folders = [host.path(one.source) for one in copies if one.target == layout.SHM_TAR]
    try:
        return any(any(folder.iterdir()) for folder in folders)
    except OSError:
        return False


def _warnings(spec: CheckpointSpec, said: Sequence[str]) -> tuple[str, ...]:
    if said and spec.strict:
        raise errors.Refused(f"{said[0]} Leave out strict to accept that.")
    return tuple(said)


def _bound(found: Found, addresses: tuple[str, ...]) -> Iterator[str]:
    for one in addresses:
        yield (
            f"Container {found.name} listens at its pod's own address {one}, so a pod with another one "
            "starts cold; have it listen at any address (0.0.0.0, ::)."
        )


def _is_outside(mount: MountFact) -> bool:
    return mount.kind == "host" and mount.source not in _HARMLESS_HOST_PATHS


def _is_left_out(mount: MountFact, asked: Template) -> bool:
    """Whether only a part of a volume is mounted: no copy is made of that."""
    return bool(mount.sub_path) and not any(
        one.name == mount.name and not one.sub_path for one in asked.mounts
    )


def _unsaved(found: Found, asked: Template, there: tuple[HostFile, ...]) -> Iterator[str]:
    for mount in asked.mounts:
        files = [file.path for file in there if host_files.is_below(file.path, mount)]
        if files and (_is_outside(mount) or mount.sub_path):
            kind = "subPath volume" if mount.sub_path else "hostPath"
            yield (
                f"Container {found.name} has {files[0]} open, of a {kind}, which is not saved: a pod "
                "starts cold where that file is missing or another; keep it in an emptyDir without subPath."
            )
        elif mount.sub_path or (_is_outside(mount) and not mount.read_only):
            yield (
                f"What container {found.name} has at {mount.destination} (a "
                f"{'subPath' if mount.sub_path else 'hostPath or other'} volume) is not saved."
            )


def _size(host: Host, upper: str, copies: tuple[Copy, ...]) -> int:
    """Bytes that the copies take, at most; the upper directory is written twice, and with its holes."""
    total = 0
    for copy in copies:
        times = 2 if copy.source == upper else 1
        total += _tree_bytes(str(host.path(copy.source)), holes=copy.source == upper) * times
    return total


def _tree_bytes(folder: str, *, holes: bool) -> int:
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += 1024 + _tree_bytes(entry.path, holes=holes)
                else:
                    seen = entry.stat(follow_symlinks=False)
                    size = seen.st_size if holes else min(seen.st_size, seen.st_blocks * 512)
                    total += 1024 + size
    except OSError:
        return total
    return total


def check_room(
    host: Host,
    data_dir: str,
    inspected: tuple[Inspected, ...],
    *,
    copies: int,
    free_floor: float,
) -> None:
    """Refuse when the disk has no room for what the dump writes, ``copies`` times. Blocks.

    Args:
        free_floor: share of the whole disk that must stay free.

    Raises:
        Refused: code INSUFFICIENT_STORAGE.
    """
    needed = copies * sum(one.memory_bytes + one.files_bytes + _IMAGES_SLACK for one in inspected)
    disk = Disk.under(host, data_dir)
    floor = int(disk.total_bytes * free_floor)
    if disk.free_bytes - needed < floor:
        raise errors.Refused(
            f"The checkpoint needs up to {_mib(needed)} MiB and {_mib(floor)} MiB must stay free "
            f"under {data_dir}, which has {_mib(disk.free_bytes)} MiB; delete checkpoints or enlarge the disk.",
            code=errors.INSUFFICIENT_STORAGE,
        )


def _mib(size: int) -> int:
    return -(-size >> 20)
