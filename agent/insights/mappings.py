"""Memory: each process's mappings, what is behind them, how much of each was dumped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from agent.formats.criu_entries import AddressSpace, Area, Mapping
from agent.insights.bounds import Bounds, Row, clipped
from agent.insights.dump import Dump, Task

# in the order in which they are asked for: more than one bit may be set
_NAMES: Final = (
    (Area.VSYSCALL, "[vsyscall]"),
    (Area.VDSO, "[vdso]"),
    (Area.VVAR, "[vvar]"),
    (Area.HEAP, "[heap]"),
    (Area.STACK, "[stack]"),
    (Area.SYSVIPC, "[sysv shared memory]"),
    (Area.SOCKET, "[socket ring]"),
    (Area.AIORING, "[aio]"),
)
_FILES: Final = Area.FILE_PRIVATE | Area.FILE_SHARED
_SHARED: Final = 1  # MAP_SHARED


def report(dump: Dump, bounds: Bounds) -> dict[str, Any]:
    """Every process's mappings, and the sums over them."""
    found: list[Row] = []
    totals = {"mapped_bytes": 0, "dumped_bytes": 0}
    for task in dump.tasks():
        mapped, dumped = sizes(dump, task)
        head: Row = {
            "pid": task.pid,
            "command": task.core.command,
            "mapped_bytes": mapped,
            "dumped_bytes": dumped,
        }
        totals["mapped_bytes"] += mapped
        totals["dumped_bytes"] += dumped
        if bounds.fits(head):
            found.append(head | {"mappings": bounds.keep(rows(dump, task, bounds))})
    shared = shared_bytes(dump)
    return {"processes": found, "totals": totals | {"shared_dumped_bytes": shared}}


def sizes(dump: Dump, task: Task) -> tuple[int, int]:
    """(bytes mapped, bytes of pages in the dump) of a process."""
    mapped = sum(m.end - m.start for m in task.space.mappings) if task.space else 0
    memory = dump.memory(task)
    if memory is None:
        return mapped, 0
    with memory:
        return mapped, memory.stored_bytes()


def shared_bytes(dump: Dump) -> int:
    """Bytes of dumped pages that processes share."""
    total = 0
    for _, memory in dump.shared_memories():
        with memory:
            total += memory.stored_bytes()
    return total


def rows(dump: Dump, task: Task, bounds: Bounds) -> Iterator[Row]:
    """A process's mappings, ascending, each with the bytes of it that were dumped."""
    if task.space is None:
        return
    dumped = _dumped(dump, task, bounds)
    for mapping, size_bytes in zip(task.space.mappings, dumped, strict=True):
        yield {
            "start": f"{mapping.start:#x}",
            "end": f"{mapping.end:#x}",
            "size_bytes": mapping.end - mapping.start,
            "dumped_bytes": size_bytes,
            "permissions": permissions(mapping),
            "kind": kind(mapping),
            "path": clipped(name(dump, task.space, mapping)),
            "offset": mapping.offset,
        }


def permissions(mapping: Mapping) -> str:
    """As /proc/<pid>/maps writes them: ``rw-p``."""
    bits = mapping.protection
    letters = (letter if bits & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
    return "".join(letters) + ("s" if mapping.flags & _SHARED else "p")


def kind(mapping: Mapping) -> str:
    """What a mapping is of: file, memfd, shared, anonymous or special."""
    status = mapping.status
    if status & Area.MEMFD:
        return "memfd"
    if status & _FILES:
        return "file"
    if status & (Area.ANON_SHARED | Area.SYSVIPC):
        return "shared"
    return "anonymous" if status & Area.ANON_PRIVATE else "special"


def name(dump: Dump, space: AddressSpace, mapping: Mapping) -> str:
    """The file behind a mapping, or what the kernel calls it; "" for plain memory."""
    if mapping.status & Area.MEMFD:
        file = dump.files.get(mapping.shmid)
        inode = dump.memfds.get(file.memfd_inode or 0) if file else None
        return f"/memfd:{inode.name}" if inode else "/memfd:"
    if mapping.status & _FILES:
        return dump.path(mapping.shmid)
    for area, text in _NAMES:
        if mapping.status & area:
            return text
    if mapping.start < space.brk and mapping.end > space.start_brk:
        return "[heap]"
    return "[stack]" if mapping.start <= space.start_stack < mapping.end else ""


def located(dump: Dump, task: Task, vaddr: int) -> str:
    """The name of the mapping that an address is in."""
    if task.space is None:
        return ""
    for mapping in task.space.mappings:
        if mapping.start <= vaddr < mapping.end:
            return name(dump, task.space, mapping)
    return ""


def _dumped(dump: Dump, task: Task, bounds: Bounds) -> list[int]:
    """How many bytes of each of a process's mappings were dumped; both lists ascend, so one walk does."""
    assert task.space is not None  # noqa: S101 - rows() looked
    mappings = task.space.mappings
    found = [0] * len(mappings)
    memory = dump.memory(task)
    if memory is None:
        return found
    at = 0
    with memory:
        for stretch in memory.stretches():
            bounds.check()
            while at < len(mappings) and mappings[at].end <= stretch.vaddr:
                at += 1
            index = at
            while index < len(mappings) and mappings[index].start < stretch.end:
                low = max(stretch.vaddr, mappings[index].start)
                high = min(stretch.end, mappings[index].end)
                found[index] += max(0, high - low)
                index += 1
    return found
