"""What changed from one checkpoint to another: processes, mappings, files, sockets, pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from agent.formats.criu_images import PAGE_SIZE
from agent.formats.jobs import Progress, Report
from agent.insights import files, mappings, sockets
from agent.insights.bounds import Bounds, Row
from agent.insights.dump import Dump, Task
from agent.insights.memory import CHUNK, Memory

_Rows = Callable[[Dump, Task, Bounds], Iterable[Row]]
_Piece = tuple[int, bytes]


def report(dump: Dump, other: Dump, bounds: Bounds, progress: Report) -> dict[str, Any]:
    """What ``other`` has that ``dump`` has not, and the other way round; ``dump`` is the older one."""
    before, after = _by_pid(dump), _by_pid(other)
    both = [(before[pid], after[pid]) for pid in before if pid in after]
    same = [(old, new) for old, new in both if old.core.command == new.core.command]
    kept = {old.pid for old, _ in same}
    rows = {
        "mappings": _of_tasks((dump, other), same, mappings.rows, _mapping_key, bounds),
        "files": _of_tasks(
            (dump, other), same, lambda d, t, _: files.rows(d, t), _file_key, bounds
        ),
        "sockets": _of_tasks((dump, other), same, _sockets, _socket_key, bounds),
    }
    return {
        "processes": {
            "added": bounds.keep(_head(t) for pid, t in after.items() if pid not in kept),
            "removed": bounds.keep(_head(t) for pid, t in before.items() if pid not in kept),
            "in_both": len(same),
        },
        **rows,
        "pages": _pages(dump, other, same, bounds, progress),
    }


def changed_pages(old: Memory | None, new: Memory | None, bounds: Bounds) -> Row:
    """How many pages two dumps of a memory have in common, and not."""
    counts = {"changed": 0, "added": 0, "removed": 0, "equal": 0}
    for left, right in _aligned(_pieces(old), _pieces(new)):
        bounds.check()
        if bounds.is_over:
            break
        if left is None or right is None:
            size = len(left or right or b"")
            counts["added" if left is None else "removed"] += size // PAGE_SIZE
        elif left == right:
            counts["equal"] += len(left) // PAGE_SIZE
        else:
            differing = _differing(left, right)
            counts["changed"] += differing
            counts["equal"] += len(left) // PAGE_SIZE - differing
    return counts


def _pages(
    dump: Dump, other: Dump, same: list[tuple[Task, Task]], bounds: Bounds, progress: Report
) -> Row:
    found: list[Row] = []
    totals = {"changed": 0, "added": 0, "removed": 0, "equal": 0}
    for number, (old, new) in enumerate(same):
        progress(Progress(100.0 * number / len(same), "Comparing memory"))
        first, second = dump.memory(old), other.memory(new)
        try:
            counts = changed_pages(first, second, bounds)
        finally:
            for memory in (first, second):
                if memory is not None:
                    memory.__exit__()
        for name in totals:
            totals[name] += counts[name]
        row = {"pid": old.pid, "command": old.core.command, **counts}
        if bounds.fits(row):
            found.append(row)
    return {"page_size_bytes": PAGE_SIZE, "processes": found, "totals": totals}


def _by_pid(dump: Dump) -> dict[int, Task]:
    return {task.pid: task for task in dump.tasks()}


def _head(task: Task) -> Row:
    return {"pid": task.pid, "ppid": task.node.ppid, "command": task.core.command}


def _of_tasks(
    dumps: tuple[Dump, Dump],
    same: list[tuple[Task, Task]],
    rows: _Rows,
    key: Callable[[Row], tuple[Any, ...]],
    bounds: Bounds,
) -> Row:
    """The rows that only one of two dumps has, of the processes that both have."""
    added: list[Row] = []
    removed: list[Row] = []
    for old, new in same:
        before = {key(row): row for row in rows(dumps[0], old, bounds)}
        after = {key(row): row for row in rows(dumps[1], new, bounds)}
        pid = {"pid": old.pid}
        added += bounds.keep(pid | after[k] for k in after if k not in before)
        removed += bounds.keep(pid | before[k] for k in before if k not in after)
    return {"added": added, "removed": removed}


def _sockets(dump: Dump, task: Task, _: Bounds) -> Iterator[Row]:
    return (sockets.row(fd, socket) for fd, socket in sockets.of_task(dump, task))


def _mapping_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("start", "end", "permissions", "path", "offset"))


def _file_key(row: Row) -> tuple[Any, ...]:
    path = row["path"] if row["type"] in ("file", "fifo", "terminal") else ""
    return row["fd"], row["type"], path  # pipes and sockets get other numbers in every life


def _socket_key(row: Row) -> tuple[Any, ...]:
    names = ("fd", "family", "type", "protocol", "state", "source_address", "source_port")
    return (*(row[name] for name in names), row["destination_address"], row["destination_port"])


def _pieces(memory: Memory | None) -> Iterator[_Piece]:
    return iter(()) if memory is None else memory.chunks(CHUNK)


def _aligned(
    left: Iterator[_Piece], right: Iterator[_Piece]
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Two ascending rows of pieces, cut so that each pair is about the same addresses."""
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] + len(one[1]) <= two[0]):
            assert one is not None  # noqa: S101 - the loop's condition
            yield one[1], None
            one = next(left, None)
        elif one is None or two[0] + len(two[1]) <= one[0]:
            yield None, two[1]
            two = next(right, None)
        elif one[0] < two[0]:
            cut = two[0] - one[0]
            yield one[1][:cut], None
            one = (two[0], one[1][cut:])
        elif two[0] < one[0]:
            cut = one[0] - two[0]
            yield None, two[1][:cut]
            two = (one[0], two[1][cut:])
        else:
            cut = min(len(one[1]), len(two[1]))
            yield one[1][:cut], two[1][:cut]
            one = _rest(one, cut) or next(left, None)
            two = _rest(two, cut) or next(right, None)


def _rest(piece: _Piece, cut: int) -> _Piece | None:
    return (piece[0] + cut, piece[1][cut:]) if cut < len(piece[1]) else None


def _differing(left: bytes, right: bytes) -> int:
    pages = range(0, len(left), PAGE_SIZE)
    return sum(left[at : at + PAGE_SIZE] != right[at : at + PAGE_SIZE] for at in pages)
