"""A small dump written by hand: two processes, a file, a pipe, sockets, pages; each image can be replaced."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from agent.formats import criu_images
from agent.formats.criu_images import PAGE_SIZE
from agent.formats.criu_wire import IN_PARENT, PRESENT, PageRun
from agent.formats.pagemap import Pagemap
from snap_protos.criu import images_pb2 as pb

MAGIC = criu_images.magic(0x5A5A5A5A)
HEAP = 0x10_000
STACK = 0x7F_0000
ARGS = STACK + 0x100
LOOPBACK = 0x0100007F  # as the kernel has 127.0.0.1 in memory


def write_dump(
    parts: Path,
    *,
    arguments: bytes = b"server\0--port\x006379\0",
    variables: bytes = b"HOME=/root\0DB_PASSWORD=opensesame1\0",
    heap: bytes = b"",
) -> Path:
    """The dump in ``parts/checkpoint``; process 1 with a heap of two pages and a stack, its child 7."""
    images = parts / "checkpoint"
    images.mkdir(parents=True)
    tree = [
        pb.pstree_entry(pid=1, ppid=0, pgid=1, sid=1, threads=[1, 2]),
        pb.pstree_entry(pid=7, ppid=1, pgid=1, sid=1, threads=[7]),
    ]
    write(images / "pstree.img", *(entry.SerializeToString() for entry in tree))
    for pid, command in ((1, "server"), (7, "gone")):
        state = 1 if pid == 1 else 6
        core = pb.core_entry(mtype=1, tc=pb.task_core_entry(task_state=state, comm=command))
        core.thread_core.creds.CopyFrom(_credentials())
        write(images / f"core-{pid}.img", core.SerializeToString())
    write(images / "mm-1.img", memory_of(arguments, variables).SerializeToString())
    ids = pb.task_kobj_ids_entry(vm_id=1, files_id=3)
    ids_image = (
        ids.SerializeToString() + b"\x18\x01\x20\x01"
    )  # fs_id and sighand_id, required by CRIU
    write(images / "ids-1.img", ids_image)
    write(images / "fs-1.img", pb.fs_entry(cwd_id=20, root_id=21).SerializeToString())
    write(images / "fdinfo-3.img", *_descriptors())
    write(images / "files.img", *_files())
    write(images / "mountpoints-5.img", _mount())
    stack = (b"\0" * 0x100 + arguments + variables).ljust(PAGE_SIZE, b"\0")
    pages = heap.ljust(2 * PAGE_SIZE, b"\0") + stack
    (images / "pages-1.img").write_bytes(pages)
    runs = [PageRun(HEAP, 2, PRESENT), PageRun(STACK, 1, PRESENT)]
    write_pagemap(images / "pagemap-1.img", 1, runs)
    (parts / "config.dump").write_text(json.dumps({"id": "c1", "name": "app"}))
    spec = {"process": {"env": ["API_TOKEN=opensesame1", "PATH=/bin"]}, "mounts": []}
    (parts / "spec.dump").write_text(json.dumps(spec))
    (parts / "rootfs-diff.tar").write_bytes(tar_of({}))
    return parts


def memory_of(arguments: bytes, variables: bytes) -> pb.mm_entry:
    """The address space of process 1."""
    env = ARGS + len(arguments)
    space = pb.mm_entry(
        mm_start_stack=STACK + 0x80,
        mm_start_brk=HEAP,
        mm_brk=HEAP + 2 * PAGE_SIZE,
        mm_arg_start=ARGS,
        mm_arg_end=env,
        mm_env_start=env,
        mm_env_end=env + len(variables),
        exe_file_id=20,
    )
    for start, pages, status, file in (
        (0x4000, 1, 0x41, 22),
        (HEAP, 2, 0x201, 0),
        (STACK, 1, 0x201, 0),
    ):
        end = start + pages * PAGE_SIZE
        space.vmas.add(  # fd, required by CRIU, is not read here
            start=start, end=end, pgoff=0, shmid=file, prot=3, flags=2, status=status
        )
    return space


def write(path: Path, *messages: bytes) -> None:
    """An image of ``messages``."""
    path.write_bytes(criu_images.build(MAGIC, messages))


def write_pagemap(path: Path, number: int, runs: list[PageRun]) -> None:
    """A pagemap over ``pages-<number>.img``."""
    magic = criu_images.magic(criu_images.PAGEMAP_MAGIC)
    path.write_bytes(Pagemap(magic, number, runs).image())


def with_parent(parts: Path) -> None:
    """Move the first page of the heap into a folder named ``parent``, as an incremental dump has it."""
    images = parts / "checkpoint"
    parent = images / "parent"
    parent.mkdir()
    pages = (images / "pages-1.img").read_bytes()
    (parent / "pages-1.img").write_bytes(pages[:PAGE_SIZE])
    write_pagemap(parent / "pagemap-1.img", 1, [PageRun(HEAP, 1, PRESENT)])
    (images / "pages-1.img").write_bytes(pages[PAGE_SIZE:])
    runs = [
        PageRun(HEAP, 1, IN_PARENT),
        PageRun(HEAP + PAGE_SIZE, 1, PRESENT),
        PageRun(STACK, 1, PRESENT),
    ]
    write_pagemap(images / "pagemap-1.img", 1, runs)


def tar_of(files: dict[str, bytes]) -> bytes:
    """A plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _credentials() -> pb.creds_entry:
    return pb.creds_entry(uid=0, gid=0, euid=0, egid=0, suid=0, sgid=0, fsuid=0, fsgid=0, secbits=0)


def _descriptors() -> list[bytes]:
    kinds = [(0, 1, 22), (1, 2, 30), (3, 4, 31), (4, 5, 32), (5, 13, 33), (6, 6, 34)]
    return [
        pb.fdinfo_entry(id=file, flags=0, type=kind, fd=fd).SerializeToString()
        for fd, kind, file in kinds
    ]


def _files() -> list[bytes]:
    files = [
        pb.file_entry(
            type=1, id=number, reg=pb.reg_file_entry(id=number, flags=2, pos=5, name=path, size=9)
        )
        for number, path in ((20, b"/srv/server"), (21, b"/"), (22, b"/srv/caf\xe9"))
    ]
    files.append(pb.file_entry(type=2, id=30, pipe=pb.pipe_entry(id=30, pipe_id=99, flags=1)))
    inet = pb.inet_sk_entry(
        id=31, ino=7, family=2, type=1, proto=6, state=1, src_port=6379, dst_port=50000
    )
    inet.src_addr.append(LOOPBACK)
    inet.dst_addr.append(LOOPBACK + 0x01000000)
    files.append(pb.file_entry(type=4, id=31, isk=inet))
    unix = pb.unix_sk_entry(id=32, ino=8, type=1, state=10, peer=0, name=b"\0bus\xff")
    files.append(pb.file_entry(type=5, id=32, usk=unix))
    netlink = pb.netlink_sk_entry(
        id=33, ino=9, protocol=0, state=7, portid=41, dst_portid=0, dst_group=0
    )
    files.append(pb.file_entry(type=13, id=33, nlsk=netlink))
    files.append(pb.file_entry(type=6, id=34))
    return [file.SerializeToString() for file in files]


def _mount() -> bytes:
    mount = pb.mnt_entry(fstype=5, mnt_id=2, parent_mnt_id=1, flags=0)
    mount.root, mount.mountpoint = b"/", b"/dev/shm"
    mount.source, mount.options = b"shm", b"size=65536k"
    return mount.SerializeToString()
