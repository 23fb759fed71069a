"""What CRIU wrote down, by its files: the tree, each process's state, memory, descriptors, folders, mounts.

Source: CRIU, criu/image-desc.c (the names of the files).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from agent.formats import criu_entries_wire, criu_images, criu_wire, layout
from agent.formats.criu_entries import (
    AddressSpace,
    Descriptor,
    Filesystem,
    KernelIds,
    MemfdInode,
    Mount,
    OpenFile,
)
from agent.formats.criu_wire import Core, DumpStats, ProcessNode
from agent.insights import opening
from agent.insights.bounds import damaged
from agent.insights.memory import Memory

MAX_IMAGE_BYTES: Final = 64 << 20  # but for pagemaps and pages, which are never read whole
MAX_PROCESSES: Final = 100_000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Task:
    """One process. ``space`` and ``ids`` are None for one that has ended and was not yet waited for."""

    node: ProcessNode
    core: Core
    space: AddressSpace | None
    ids: KernelIds | None

    @property
    def pid(self) -> int:
        """As the container sees it."""
        return self.node.pid


class Dump:
    """A checkpoint's images, read when they are asked for.

    Raises:
        Refused: an image is missing that must be there, or damaged (from any method).
    """

    def __init__(self, parts: Path) -> None:
        self.parts = parts
        self.images = parts / layout.CHECKPOINT_DIR

    @cached_property
    def nodes(self) -> tuple[ProcessNode, ...]:
        """The processes in the order of the dump, parents first."""
        found: dict[int, ProcessNode] = {}
        for node in self._entries("pstree.img", criu_wire.process_node_of):
            if node.pid in found or len(found) >= MAX_PROCESSES:
                raise damaged("pstree.img", f"process {node.pid} is one too many")
            found[node.pid] = node
        if not found:
            raise damaged("pstree.img", "it names no process")
        return tuple(found.values())

    def tasks(self) -> Iterator[Task]:
        """Every process with its state."""
        for node in self.nodes:
            yield self.task(node)

    def task(self, node: ProcessNode) -> Task:
        """One process with its state."""
        core = self._first(f"core-{node.pid}.img", criu_wire.core_of)
        if core is None:
            raise damaged(f"core-{node.pid}.img", "it is missing")
        space = self._first(f"mm-{node.pid}.img", criu_entries_wire.address_space_of)
        ids = self._first(f"ids-{node.pid}.img", criu_entries_wire.kernel_ids_of)
        return Task(node, core, space, ids)

    def core(self, thread: int) -> Core | None:
        """One thread's state."""
        return self._first(f"core-{thread}.img", criu_wire.core_of)

    @cached_property
    def files(self) -> Mapping[int, OpenFile]:
        """Everything that descriptors, mappings and folders refer to, by id."""
        found = self._entries("files.img", criu_entries_wire.open_file_of)
        return {file.file_id: file for file in found}

    @cached_property
    def memfds(self) -> Mapping[int, MemfdInode]:
        """Memory files by inode."""
        found = self._entries("memfd.img", criu_entries_wire.memfd_inode_of)
        return {inode.inode: inode for inode in found}

    def descriptors(self, task: Task) -> tuple[Descriptor, ...]:
        """A process's open descriptors, in their order."""
        if task.ids is None:
            return ()
        found = self._entries(f"fdinfo-{task.ids.files_id}.img", criu_entries_wire.descriptor_of)
        return tuple(sorted(found, key=lambda one: one.fd))

    def filesystem(self, task: Task) -> Filesystem | None:
        """A process's current folder and root."""
        return self._first(f"fs-{task.pid}.img", criu_entries_wire.filesystem_of)

    def mounts(self) -> Iterator[tuple[int, Mount]]:
        """(mount namespace, mount), all of them."""
        for file in sorted(self.images.glob("mountpoints-*.img")):
            number = file.stem.partition("-")[2]
            if number.isascii() and number.isdigit():
                for mount in self._entries(file.name, criu_entries_wire.mount_of):
                    yield int(number), mount

    def memory(self, task: Task) -> Memory | None:
        """A process's pages; None if none were dumped. Close it."""
        return self._memory(str(task.pid))

    def shared_memories(self) -> Iterator[tuple[int, Memory]]:
        """(id, pages) of memory that processes share. Close each."""
        for file in sorted(self.images.glob("pagemap-shmem-*.img")):
            number = file.stem.rpartition("-")[2]
            if number.isascii() and number.isdigit():
                memory = self._memory(f"shmem-{number}")
                if memory is not None:
                    yield int(number), memory

    def path(self, file_id: int) -> str:
        """The path of a file; "" if it has none."""
        file = self.files.get(file_id)
        return file.path if file else ""

    def statistics(self) -> DumpStats | None:
        """CRIU's own figures of the dump."""
        places = (self.parts / layout.STATS_DUMP, self.images / layout.STATS_DUMP)
        contents = (self._content(file) for file in places)
        content = next((found for found in contents if found is not None), None)
        if content is None:
            return None
        return self._decoded(
            layout.STATS_DUMP, lambda: criu_wire.dump_stats_of(criu_images.first(content))
        )

    def _memory(self, name: str) -> Memory | None:
        try:
            return Memory(self.images, name)
        except FileNotFoundError:
            return None

    def _first(self, name: str, decode: Callable[[bytes], _T]) -> _T | None:
        """The first entry of an image; None if there is no such file."""
        content = self._content(self.images / name)
        if content is None:
            return None
        return self._decoded(name, lambda: decode(criu_images.first(content)))

    def _entries(self, name: str, decode: Callable[[bytes], _T]) -> tuple[_T, ...]:
        """All entries of an image; none if there is no such file."""
        content = self._content(self.images / name)
        if content is None:
            return ()
        return self._decoded(name, lambda: tuple(map(decode, criu_images.entries(content))))

    def _decoded(self, name: str, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except ValueError as cause:
            raise damaged(name, cause) from cause

    def _content(self, file: Path) -> bytes | None:
        try:
            with os.fdopen(opening.descriptor(file), "rb") as opened:
                if os.fstat(opened.fileno()).st_size > MAX_IMAGE_BYTES:
                    raise damaged(file.name, "it is larger than such images are")
                return opened.read()
        except FileNotFoundError:
            return None
