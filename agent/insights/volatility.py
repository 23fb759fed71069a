"""The dump in the words of volatility's Linux plugins, so that its readers know their way.

What a kernel's memory would say and a checkpoint does not (kernel addresses, inodes, times) is null.

Source: volatility3, linux plugins pslist, pstree, psaux, proc.Maps, lsof, sockstat, envars (columns; children of a
row under ``__children`` as its JSON renderer writes them).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from agent.formats.criu_entries import Socket
from agent.insights import bounds as limits
from agent.insights import files, mappings, processes, sockets
from agent.insights.bounds import Bounds, Row, clipped
from agent.insights.dump import Dump, Task

HIDDEN: Final = "********"
_TYPES: Final = {"file": "REG", "pipe": "FIFO", "fifo": "FIFO", "socket": "SOCK", "terminal": "CHR"}


def report(dump: Dump, bounds: Bounds, *, with_values: bool = False) -> dict[str, Any]:
    """One list of rows for each plugin."""
    tasks = list(dump.tasks())
    named = {task.pid: task.core.command for task in tasks}
    nested = processes.tree(dump.nodes, named)
    parents = {task.pid: task.node.ppid for task in tasks}
    return {
        "pslist": bounds.keep(map(_pslist, tasks)),
        "pstree": [_pstree(row, parents) for row in nested if bounds.fits(row)],
        "psaux": bounds.keep(_psaux(dump, task) for task in tasks),
        "maps": bounds.keep(row for task in tasks for row in _maps(dump, task, bounds)),
        "lsof": bounds.keep(row for task in tasks for row in _lsof(dump, task)),
        "sockstat": bounds.keep(row for task in tasks for row in _sockstat(dump, task)),
        "envars": bounds.keep(
            row for task in tasks for row in _envars(dump, task, with_values=with_values)
        ),
    }


def _pslist(task: Task) -> Row:
    who = task.core.credentials
    return {
        "OFFSET (V)": None,
        "PID": task.pid,
        "TID": task.pid,
        "PPID": task.node.ppid,
        "COMM": task.core.command,
        "UID": who.uid if who else None,
        "GID": who.gid if who else None,
        "EUID": who.euid if who else None,
        "EGID": who.egid if who else None,
        "CREATION TIME": None,
        "File output": "Disabled",
        "__children": [],
    }


def _pstree(row: Row, parents: dict[int, int]) -> Row:
    pid = row["pid"]
    return {
        "OFFSET (V)": None,
        "PID": pid,
        "TID": pid,
        "PPID": parents[pid],
        "COMM": row["command"],
        "__children": [_pstree(child, parents) for child in row["children"]],  # at most MAX_DEPTH
    }


def _psaux(dump: Dump, task: Task) -> Row:
    given = processes.arguments(dump, task).command_line
    arguments = clipped(limits.joined(given)) if given is not None else f"[{task.core.command}]"
    return {
        "PID": task.pid,
        "PPID": task.node.ppid,
        "COMM": task.core.command,
        "ARGS": arguments,
        "__children": [],
    }


def _maps(dump: Dump, task: Task, bounds: Bounds) -> Iterator[Row]:
    for row in mappings.rows(dump, task, bounds):
        yield {
            "PID": task.pid,
            "Process": task.core.command,
            "Start": row["start"],
            "End": row["end"],
            "Flags": row["permissions"][:3],
            "PgOff": f"{row['offset']:#x}",
            "Major": None,
            "Minor": None,
            "Inode": None,
            "File Path": row["path"] or "Anonymous Mapping",
            "File output": "Disabled",
            "__children": [],
        }


def _lsof(dump: Dump, task: Task) -> Iterator[Row]:
    for row in files.rows(dump, task):
        yield {
            "PID": task.pid,
            "TID": task.pid,
            "Process": task.core.command,
            "FD": row["fd"],
            "Path": row["path"],
            "Device": None,
            "Inode": None,
            "Type": _TYPES.get(row["type"], "ANON"),
            "Mode": None,
            "Changed": None,
            "Modified": None,
            "Accessed": None,
            "Size": row.get("size_bytes"),
            "__children": [],
        }


def _sockstat(dump: Dump, task: Task) -> Iterator[Row]:
    for fd, socket in sockets.of_task(dump, task):
        yield _socket(task, fd, socket)


def _socket(task: Task, fd: int, socket: Socket) -> Row:
    ends = sockets.endpoints(socket)
    return {
        "NetNS": socket.net_ns_id or None,
        "Process Name": task.core.command,
        "PID": task.pid,
        "TID": task.pid,
        "FD": fd,
        "Sock Offset": None,
        "Family": sockets.family(socket),
        "Type": sockets.TYPES.get(socket.kind, str(socket.kind)),
        "Proto": sockets.protocol(socket),
        "Source Addr": ends.source,
        "Source Port": ends.source_port,
        "Destination Addr": ends.destination,
        "Destination Port": ends.destination_port,
        "State": sockets.state(socket),
        "Filter": None,
        "__children": [],
    }


def _envars(dump: Dump, task: Task, *, with_values: bool) -> Iterator[Row]:
    for name, value in processes.arguments(dump, task).environment:
        shown = clipped(value.decode("utf-8", "backslashreplace")) if with_values else HIDDEN
        yield {
            "PID": task.pid,
            "PPID": task.node.ppid,
            "COMM": task.core.command,
            "KEY": name,
            "VALUE": shown,
            "__children": [],
        }
