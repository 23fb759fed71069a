"""All at once in the shape of ``checkpointctl inspect --all --format json``, for clients that read that.

Source: checkpointctl's output (version 1.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from agent.formats.criu_entries import FdType, Socket
from agent.insights import bounds as limits
from agent.insights import files, processes, sockets, summary
from agent.insights.bounds import Bounds, Row, clipped
from agent.insights.dump import Dump, Task

_FRACTION: Final = re.compile(r"\.[0-9]+")  # of a second


def report(dump: Dump, bounds: Bounds) -> dict[str, Any]:
    """One checkpoint, as an element of checkpointctl's list."""
    whose = summary.container(dump.parts)
    size = summary.sizes(dump.parts)
    figures = summary.statistics(dump) or {}
    return {
        "container_name": whose.get("container_name") or whose["name"] or "",
        "image": whose["image"] or "",
        "id": whose["id"] or "",
        "runtime": whose["runtime"] or "",
        "created": _FRACTION.sub("", whose["created_at"] or ""),
        "checkpointed": _FRACTION.sub("", whose["checkpointed_at"] or ""),
        "engine": "containerd" if "containerd" in str(whose["runtime"]) else "CRI-O",
        "checkpoint_size": {
            "total_size": size["checkpoint_bytes"],
            "memory_pages_size": size["memory_pages_bytes"],
            "root_fs_diff_size": size["rootfs_diff_bytes"],
        },
        "statistics": {name.removesuffix("_us"): value for name, value in figures.items()},
        "process_tree": _tree(dump, bounds),
        "file_descriptors": [_files(dump, task, bounds) for task in dump.tasks()],
        "sockets": list(_sockets(dump, bounds)),
        "mounts": bounds.keep(_mounts(dump)),
    }


def _tree(dump: Dump, bounds: Bounds) -> Row | None:
    named = {task.pid: task.core.command for task in dump.tasks()}
    lines = {}
    for task in dump.tasks():
        given = processes.arguments(dump, task).command_line
        lines[task.pid] = clipped(limits.joined(given)) if given is not None else ""
    roots = processes.tree(dump.nodes, named)
    return _branch(roots[0], lines, bounds) if roots else None


def _branch(row: Row, lines: dict[int, str], bounds: Bounds) -> Row:
    head: Row = {"pid": row["pid"], "command": row["command"], "cmdline": lines[row["pid"]]}
    children = []
    for child in row["children"]:  # at most processes.MAX_DEPTH deep
        if not bounds.fits(child["pid"]):
            break
        children.append(_branch(child, lines, bounds))
    return head | ({"children": children} if children else {})


def _files(dump: Dump, task: Task, bounds: Bounds) -> Row:
    rows = []
    for descriptor in dump.descriptors(task):
        file = dump.files.get(descriptor.file_id)
        name = files.type_name(descriptor.kind)
        shown = f"{name}.{descriptor.file_id}"
        if descriptor.kind == FdType.REG:
            shown = file.path if file else "unknown"
        elif descriptor.kind == FdType.PIPE and file is not None:
            shown = f"pipe[{file.pipe_id}]"
        rows.append({"type": name, "fd": f"{name} {descriptor.fd}", "path": clipped(shown)})
    where = dump.filesystem(task)
    if where is not None:
        rows.append({"type": "", "fd": "cwd", "path": clipped(dump.path(where.cwd_id))})
        rows.append({"type": "", "fd": "root", "path": clipped(dump.path(where.root_id))})
    return {"pid": task.pid, "open_files": bounds.keep(rows)}


def _sockets(dump: Dump, bounds: Bounds) -> Iterator[Row]:
    for task in dump.tasks():
        found = bounds.keep(_socket(socket) for _, socket in sockets.of_task(dump, task))
        if found:
            yield {"pid": task.pid, "open_sockets": found}


def _socket(socket: Socket) -> Row:
    ends = sockets.endpoints(socket)
    name = sockets.protocol(socket) or sockets.family(socket).removeprefix("AF_")
    data: Row = {
        "type": name
        if sockets.family(socket).startswith("AF_INET")
        else sockets.TYPES.get(socket.kind),
        "state": sockets.state(socket) or "",
        "src": ends.source or "",
        "src_port": ends.source_port or 0,
        "dst": ends.destination or "",
        "dst_port": ends.destination_port or 0,
        "send_buf": _amount(socket.send_buffer_bytes),
        "recv_buf": _amount(socket.receive_buffer_bytes),
    }
    return {"protocol": name, "data": data}


def _mounts(dump: Dump) -> Iterator[Row]:
    """The mounts that the container asked for."""
    given = summary.spec(dump.parts).get("mounts")
    for mount in given if isinstance(given, list) else ():
        if isinstance(mount, dict):
            names = ("destination", "type", "source")
            yield {name: clipped(str(mount.get(name) or "")) for name in names}


def _amount(size_bytes: int) -> str:
    amount = float(size_bytes)
    for unit in ("B", "KB", "MB"):
        if amount < 1024:
            return f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GB"
