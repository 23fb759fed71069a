"""CRIU's messages as the shapes of ``criu_entries``: memory, open files, sockets, mounts.

Every ``*_of`` takes one message and raises ``ValueError`` when it is none of that type, as in ``criu_wire``.

Source: ``criu_entries`` names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.formats.criu_entries import (
    AddressSpace,
    Descriptor,
    Filesystem,
    KernelIds,
    Mapping,
    MemfdInode,
    Mount,
    OpenFile,
    Socket,
)
from agent.formats.criu_wire import parse, text
from snap_protos.criu import images_pb2

# Source: linux/socket.h, linux/net.h
_AF_UNIX: Final = 1
_AF_NETLINK: Final = 16
_AF_PACKET: Final = 17
_SOCK_RAW: Final = 3


def address_space_of(message: bytes) -> AddressSpace:
    """The entry of ``mm-<pid>.img``."""
    entry = parse(images_pb2.mm_entry, message)
    return AddressSpace(
        start_stack=entry.mm_start_stack,
        start_brk=entry.mm_start_brk,
        brk=entry.mm_brk,
        arg_start=entry.mm_arg_start,
        arg_end=entry.mm_arg_end,
        env_start=entry.mm_env_start,
        env_end=entry.mm_env_end,
        exe_file_id=entry.exe_file_id,
        mappings=tuple(
            Mapping(v.start, v.end, v.pgoff, v.shmid, v.prot, v.flags, v.status) for v in entry.vmas
        ),
    )


def kernel_ids_of(message: bytes) -> KernelIds:
    """The entry of ``ids-<pid>.img``."""
    entry = parse(images_pb2.task_kobj_ids_entry, message)
    return KernelIds(entry.files_id, entry.net_ns_id, entry.mnt_ns_id)


def filesystem_of(message: bytes) -> Filesystem:
    """The entry of ``fs-<pid>.img``."""
    entry = parse(images_pb2.fs_entry, message)
    return Filesystem(entry.cwd_id, entry.root_id)


def descriptor_of(message: bytes) -> Descriptor:
    """One entry of ``fdinfo-<id>.img``."""
    entry = parse(images_pb2.fdinfo_entry, message)
    return Descriptor(entry.fd, entry.id, entry.type, entry.flags)


def open_file_of(message: bytes) -> OpenFile:
    """One entry of ``files.img``."""
    entry = parse(images_pb2.file_entry, message)
    if entry.HasField("reg"):
        reg = entry.reg
        return OpenFile(
            file_id=entry.id,
            kind=entry.type,
            path=text(reg.name),
            position=reg.pos,
            flags=reg.flags,
            mode=reg.mode if reg.HasField("mode") else None,
            size_bytes=reg.size if reg.HasField("size") else None,
        )
    return OpenFile(
        file_id=entry.id,
        kind=entry.type,
        pipe_id=entry.pipe.pipe_id or entry.fifo.pipe_id,
        path_id=entry.fifo.regf_id or entry.tty.regf_id,
        memfd_inode=entry.memfd.inode_id if entry.HasField("memfd") else None,
        socket=_socket(entry),
    )


def memfd_inode_of(message: bytes) -> MemfdInode:
    """One entry of ``memfd.img``."""
    entry = parse(images_pb2.memfd_inode_entry, message)
    return MemfdInode(entry.inode_id, text(entry.name), entry.size, entry.shmid)


def mount_of(message: bytes) -> Mount:
    """One entry of ``mountpoints-<id>.img``."""
    entry = parse(images_pb2.mnt_entry, message)
    return Mount(
        mount_id=entry.mnt_id,
        parent_id=entry.parent_mnt_id,
        kind=entry.fstype,
        filesystem=text(entry.fsname),
        root=text(entry.root),
        mountpoint=text(entry.mountpoint),
        source=text(entry.source),
        options=text(entry.options),
        external=text(entry.ext_key),
        flags=entry.flags,
        is_slave=bool(entry.master_id) and not entry.shared_id,
    )


def _socket(entry: images_pb2.file_entry) -> Socket | None:
    if entry.HasField("isk"):
        return _inet_socket(entry.isk)
    if entry.HasField("usk"):
        return _unix_socket(entry.usk)
    if entry.HasField("nlsk"):
        return _netlink_socket(entry.nlsk)
    if entry.HasField("psk"):
        sk = entry.psk
        buffers = (sk.opts.so_sndbuf, sk.opts.so_rcvbuf)
        link = b"" if not sk.ifindex else str(sk.ifindex).encode()
        return Socket(
            _AF_PACKET, sk.type, sk.protocol, 0, link, b"", 0, 0, 0, 0, sk.ns_id, *buffers
        )
    return None


def _inet_socket(sk: images_pb2.inet_sk_entry) -> Socket:
    buffers = (sk.opts.so_sndbuf, sk.opts.so_rcvbuf)
    addresses = (_address(sk.src_addr), _address(sk.dst_addr))
    ports = (sk.src_port, sk.dst_port)
    about = (sk.family, sk.type, sk.proto, sk.state)
    return Socket(*about, *addresses, *ports, sk.ino, 0, sk.ns_id, *buffers)


def _unix_socket(sk: images_pb2.unix_sk_entry) -> Socket:
    buffers = (sk.opts.so_sndbuf, sk.opts.so_rcvbuf)
    name = sk.name
    if sk.name_dir and not name.startswith((b"\0", b"/")):
        name = sk.name_dir.rstrip(b"/") + b"/" + name
    about = (_AF_UNIX, sk.type, 0, sk.state)
    return Socket(*about, name, b"", 0, 0, sk.ino, sk.peer, sk.ns_id, *buffers)


def _netlink_socket(sk: images_pb2.netlink_sk_entry) -> Socket:
    buffers = (sk.opts.so_sndbuf, sk.opts.so_rcvbuf)
    about = (_AF_NETLINK, _SOCK_RAW, sk.protocol, sk.state)
    ports = (sk.portid, sk.dst_portid)
    return Socket(*about, b"", b"", *ports, sk.ino, 0, sk.ns_id, *buffers)


def _address(words: Iterable[int]) -> bytes:
    """Bytes in network order: CRIU keeps the words as they lie in the kernel's memory."""
    return b"".join(word.to_bytes(4, "little") for word in words)
