"""What CRIU's images say of memory, files, sockets and mounts, as frozen shapes (``criu_entries_wire`` makes them).

Names and paths are text; bytes that are no UTF-8 appear as ``\\xNN``.

Source: CRIU, images/{mm,vma,fs,fdinfo,regfile,sk-inet,sk-unix,sk-netlink,packet-sock,mnt}.proto and
criu/include/image.h (``VMA_…``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class FdType(IntEnum):
    """What a descriptor refers to (``fd_types`` of fdinfo.proto)."""

    UND = 0
    REG = 1
    PIPE = 2
    FIFO = 3
    INETSK = 4
    UNIXSK = 5
    EVENTFD = 6
    EVENTPOLL = 7
    INOTIFY = 8
    SIGNALFD = 9
    PACKETSK = 10
    TTY = 11
    FANOTIFY = 12
    NETLINKSK = 13
    NS = 14
    TUNF = 15
    EXT = 16
    TIMERFD = 17
    MEMFD = 18
    BPFMAP = 19


class Area(IntFlag):
    """What a mapping is (``status`` of a vma_entry)."""

    REGULAR = 1 << 0
    STACK = 1 << 1
    VSYSCALL = 1 << 2
    VDSO = 1 << 3
    HEAP = 1 << 5
    FILE_PRIVATE = 1 << 6
    FILE_SHARED = 1 << 7
    ANON_SHARED = 1 << 8
    ANON_PRIVATE = 1 << 9
    SYSVIPC = 1 << 10
    SOCKET = 1 << 11
    VVAR = 1 << 12
    AIORING = 1 << 13
    MEMFD = 1 << 14


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping: [start, end), ``offset`` in bytes; ``shmid`` is the file's id for file mappings."""

    start: int
    end: int
    offset: int
    shmid: int
    protection: int
    flags: int
    status: int


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """A process's memory (``mm-<pid>.img``)."""

    start_stack: int
    start_brk: int
    brk: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    exe_file_id: int
    mappings: tuple[Mapping, ...]


@dataclass(frozen=True, slots=True)
class KernelIds:
    """Which objects a process uses (``ids-<pid>.img``); 0: not said."""

    files_id: int
    net_ns_id: int
    mnt_ns_id: int


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A process's folders, as ids of files (``fs-<pid>.img``)."""

    cwd_id: int
    root_id: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One open descriptor (``fdinfo-<files id>.img``); ``kind`` is an ``FdType`` or a newer number."""

    fd: int
    file_id: int
    kind: int
    flags: int


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket of any family.

    Attributes:
        family, kind, protocol, state: numbers of the kernel (AF_…, SOCK_…, IPPROTO_… or NETLINK_…, TCP_…).
        source, destination: internet: the address's bytes; unix: the name (source only).
        source_port, destination_port: internet ports, or netlink port ids.
        inode, peer: unix: of this socket and of its other end; 0: none.
    """

    family: int
    kind: int
    protocol: int
    state: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    inode: int
    peer: int
    net_ns_id: int
    send_buffer_bytes: int
    receive_buffer_bytes: int


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One entry of ``files.img``.

    Attributes:
        path: of a regular file, device or folder; "" for others.
        position, flags, mode, size_bytes: as the file had them; None where the image does not say.
        pipe_id: of pipes and FIFOs, 0 otherwise; ``path_id``: the file that a FIFO or terminal is opened by.
        memfd_inode: of a memfd, None otherwise.
    """

    file_id: int
    kind: int
    path: str = ""
    position: int | None = None
    flags: int | None = None
    mode: int | None = None
    size_bytes: int | None = None
    pipe_id: int = 0
    path_id: int = 0
    memfd_inode: int | None = None
    socket: Socket | None = None


@dataclass(frozen=True, slots=True)
class MemfdInode:
    """What a memfd is called (``memfd.img``)."""

    inode: int
    name: str
    size_bytes: int
    shmid: int


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of a namespace (``mountpoints-<id>.img``).

    Attributes:
        kind: CRIU's number of the file system.
        is_slave: what is mounted on its original on the node appears on it too, and nothing the other way.
    """

    mount_id: int
    parent_id: int
    kind: int
    filesystem: str
    root: str
    mountpoint: str
    source: str
    options: str
    external: str
    flags: int
    is_slave: bool = False
