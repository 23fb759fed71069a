"""CRIU's messages as frozen shapes: its tasks, their pages and its own figures.

Every ``*_of`` takes one message (``criu_images.entries`` gives them) and raises ``ValueError`` when
it is none of that type. Fields that CRIU does not always write are ``None`` when they are absent.

Source: CRIU, images/{inventory,pstree,core,creds,pagemap,seccomp,stats,cgroup}.proto.
``criu_entries_wire`` has the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from snap_protos.criu import images_pb2

IN_PARENT: Final = 1
LAZY: Final = 2
PRESENT: Final = 4
_TCP: Final = 6
_UNCONNECTED: Final = (0, 7, 10)  # none, TCP_CLOSE, TCP_LISTEN
_U32: Final = (1 << 32) - 1
_TSYNC: Final = 1  # Source: linux/seccomp.h, SECCOMP_FILTER_FLAG_TSYNC

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the dump as a whole was."""

    img_version: int
    lsm_type: int | None
    tcp_close: bool


@dataclass(frozen=True, slots=True)
class CgroupHierarchy:
    """One hierarchy of ``cgroup.img``.

    Attributes:
        paths: the cgroups that tasks were in, the first process's first.
        has_folders: whether the image describes any of its cgroups.
    """

    paths: tuple[str, ...]
    has_folders: bool


@dataclass(frozen=True, slots=True)
class ProcessNode:
    """One process in the dumped tree; ``threads`` holds its own pid too."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    threads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Ids, groups and capability sets of one thread; each set is a mask, bit N for capability N.

    Attributes:
        no_new_privileges: False also where CRIU does not record it; then it does not restore it either.
    """

    uid: int
    gid: int
    euid: int
    egid: int
    suid: int
    sgid: int
    fsuid: int
    fsgid: int
    groups: tuple[int, ...]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    secure_bits: int
    lsm_profile: str
    no_new_privileges: bool = False


@dataclass(frozen=True, slots=True)
class Core:
    """One thread's state (``core-<pid>.img``).

    Attributes:
        command: of the task, up to 15 characters; "" for a thread other than the first.
        seccomp_mode: 0 off, 1 strict, 2 filter; None where the image does not say.
        credentials: None where the image does not say.
        seccomp_filter: place of the filter that it set last in ``seccomp.img``; None where it has none of its own.
    """

    command: str
    task_state: int | None
    seccomp_mode: int | None
    loginuid: int | None
    oom_score_adj: int | None
    credentials: Credentials | None
    seccomp_filter: int | None = None


@dataclass(frozen=True, slots=True)
class DumpStats:
    """CRIU's own measurement of a dump. Times in microseconds."""

    freezing_time_us: int
    frozen_time_us: int
    memdump_time_us: int
    memwrite_time_us: int
    pages_scanned: int
    pages_written: int


@dataclass(frozen=True, slots=True)
class RestoreStats:
    """CRIU's own measurement of a restore. Times in microseconds."""

    forking_time_us: int
    restore_time_us: int
    pages_restored: int


@dataclass(frozen=True, slots=True)
class PageRun:
    """Consecutive pages of a process: where they are mapped and where their content is.

    Attributes:
        flags: ``PRESENT`` in this folder's pages file, ``IN_PARENT`` in the folder named
            ``parent``; ``LAZY`` may be filled in later.
    """

    vaddr: int
    pages: int
    flags: int


def parse(kind: type[_M], message: bytes) -> _M:
    """Decode, with one kind of error whatever is wrong.

    Raises:
        ValueError: the message is damaged.
    """
    try:
        return kind.FromString(message)
    except DecodeError as cause:
        raise ValueError(f"damaged CRIU image: {cause}") from cause


def text(raw: bytes | str) -> str:
    """Text for people: protobuf gives bytes where a ``string`` is no UTF-8."""
    return raw if isinstance(raw, str) else raw.decode("utf-8", "backslashreplace")


def inventory_of(message: bytes) -> Inventory:
    """The entry of ``inventory.img``."""
    entry = parse(images_pb2.inventory_entry, message)
    lsm = entry.lsmtype if entry.HasField("lsmtype") else None
    return Inventory(entry.img_version, lsm, entry.tcp_close)


def without_tcp_close(message: bytes) -> bytes:
    """The entry of ``inventory.img``, no longer saying that the dump closed TCP connections."""
    entry = parse(images_pb2.inventory_entry, message)
    entry.ClearField("tcp_close")
    return entry.SerializeToString()  # what our subset does not know goes through unchanged


def without_signal(message: bytes, number: int) -> bytes:
    """The entry of ``core-<pid>.img``, signal ``number`` no longer pending; the same bytes where it was not."""
    entry = parse(images_pb2.core_entry, message)
    changed = False
    for queue in (entry.tc.signals_s, entry.thread_core.signals_p):
        for pending in list(queue.signals):
            if int.from_bytes(pending.siginfo[:4], sys.byteorder) == number:
                queue.signals.remove(pending)
                changed = True
    return entry.SerializeToString() if changed else message


def without_master(message: bytes) -> bytes:
    """An entry of ``mountpoints-<id>.img``, no longer following a mount of the node."""
    entry = parse(images_pb2.mnt_entry, message)
    entry.ClearField("master_id")
    return entry.SerializeToString()


def cgroup_hierarchies_of(message: bytes) -> tuple[CgroupHierarchy, ...]:
    """The hierarchies in the entry of ``cgroup.img``, in its order."""
    entry = parse(images_pb2.cgroup_entry, message)
    members = [member for group in entry.sets for member in group.ctls]
    return tuple(
        CgroupHierarchy(
            paths=tuple(
                dict.fromkeys(
                    member.path
                    for member in members
                    if set(controller.cnames) <= set(member.name.split(","))
                )
            ),
            has_folders=bool(controller.dirs),
        )
        for controller in entry.controllers
    )


def with_cgroup_folders(message: bytes, folders: Sequence[dict[str, list[str]]]) -> bytes:
    """The entry of ``cgroup.img``, its hierarchies' ``folders`` (with those below each) added."""
    entry = parse(images_pb2.cgroup_entry, message)
    for controller, added in zip(entry.controllers, folders, strict=True):
        for name, below in added.items():
            folder = controller.dirs.add(dir_name=name)
            folder.children.extend(images_pb2.cgroup_dir_entry(dir_name=one) for one in below)
    return entry.SerializeToString()


def is_tcp_connection(message: bytes) -> bool:
    """Whether an entry of ``files.img`` is a TCP socket that was connected, or about to be."""
    entry = parse(images_pb2.file_entry, message)
    return entry.isk.proto == _TCP and entry.isk.state not in _UNCONNECTED


def with_timer_armed(message: bytes) -> bytes:
    """An entry of ``files.img``; a periodic timerfd that fired and was not read fires again after its period."""
    entry = parse(images_pb2.file_entry, message)
    timer = entry.tfd
    if not timer.ticks or timer.vsec or timer.vnsec or not (timer.isec or timer.insec):
        return message
    timer.vsec, timer.vnsec = timer.isec, timer.insec
    return entry.SerializeToString()


def process_node_of(message: bytes) -> ProcessNode:
    """One entry of ``pstree.img``."""
    entry = parse(images_pb2.pstree_entry, message)
    return ProcessNode(entry.pid, entry.ppid, entry.pgid, entry.sid, tuple(entry.threads))


def core_of(message: bytes) -> Core:
    """The entry of ``core-<pid>.img``."""
    entry = parse(images_pb2.core_entry, message)
    task, thread = entry.tc, entry.thread_core
    seccomp: int | None = None
    if thread.HasField("seccomp_mode"):
        seccomp = thread.seccomp_mode
    elif task.HasField("old_seccomp_mode"):
        seccomp = task.old_seccomp_mode
    return Core(
        command=text(task.comm),
        task_state=task.task_state if entry.HasField("tc") else None,
        seccomp_mode=seccomp,
        loginuid=task.loginuid if task.HasField("loginuid") else None,
        oom_score_adj=task.oom_score_adj if task.HasField("oom_score_adj") else None,
        credentials=_credentials(thread.creds) if thread.HasField("creds") else None,
        seccomp_filter=thread.seccomp_filter if thread.HasField("seccomp_filter") else None,
    )


def synchronized_filters(message: bytes) -> frozenset[int]:
    """Places of the filters in ``seccomp.img`` that are set for all threads of the process that sets them."""
    found = parse(images_pb2.seccomp_entry, message).seccomp_filters
    return frozenset(place for place, one in enumerate(found) if one.flags & _TSYNC)


def _mask(words: list[int]) -> int:
    """Capability words, lowest first, as one number."""
    return sum(word << (32 * index) for index, word in enumerate(words))


def _credentials(entry: images_pb2.creds_entry) -> Credentials:
    return Credentials(
        uid=entry.uid,
        gid=entry.gid,
        euid=entry.euid,
        egid=entry.egid,
        suid=entry.suid,
        sgid=entry.sgid,
        fsuid=entry.fsuid,
        fsgid=entry.fsgid,
        groups=tuple(entry.groups),
        inheritable=_mask(list(entry.cap_inh)),
        permitted=_mask(list(entry.cap_prm)),
        effective=_mask(list(entry.cap_eff)),
        bounding=_mask(list(entry.cap_bnd)),
        secure_bits=entry.secbits,
        lsm_profile=entry.lsm_profile,
        no_new_privileges=bool(entry.no_new_privs),
    )


def dump_stats_of(message: bytes) -> DumpStats:
    """The entry of ``stats-dump``."""
    entry = parse(images_pb2.stats_entry, message).dump
    return DumpStats(
        freezing_time_us=entry.freezing_time,
        frozen_time_us=entry.frozen_time,
        memdump_time_us=entry.memdump_time,
        memwrite_time_us=entry.memwrite_time,
        pages_scanned=entry.pages_scanned,
        pages_written=entry.pages_written,
    )


def restore_stats_of(message: bytes) -> RestoreStats:
    """The entry of ``stats-restore``."""
    entry = parse(images_pb2.stats_entry, message).restore
    return RestoreStats(entry.forking_time, entry.restore_time, entry.pages_restored)


def pages_id_of(message: bytes) -> int:
    """The first entry of a pagemap: the N of its ``pages-N.img``."""
    return parse(images_pb2.pagemap_head, message).pages_id


def page_run_of(message: bytes) -> PageRun:
    """A later entry of a pagemap, by its new or (older images) its compatible fields."""
    entry = parse(images_pb2.pagemap_entry, message)
    flags = entry.flags if entry.HasField("flags") else PRESENT
    if entry.in_parent:
        flags = flags & ~PRESENT | IN_PARENT
    return PageRun(entry.vaddr, entry.nr_pages or entry.compat_nr_pages, flags)


def pages_id(number: int) -> bytes:
    """The first message of a pagemap whose content is in ``pages-<number>.img``."""
    return images_pb2.pagemap_head(pages_id=number).SerializeToString()


def page_run(run: PageRun) -> bytes:
    """``run`` as a message with both the old and the new count: old and new CRIUs read it."""
    entry = images_pb2.pagemap_entry(
        vaddr=run.vaddr,
        compat_nr_pages=min(run.pages, _U32),
        flags=run.flags,
        nr_pages=run.pages,
    )
    if run.flags & IN_PARENT:
        entry.in_parent = True
    return entry.SerializeToString()
