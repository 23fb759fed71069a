"""Processes: the tree, command lines and environments out of their memory, ids, folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.formats.criu_wire import Credentials, ProcessNode
from agent.insights.bounds import MAX_TEXT, Bounds, Row, clipped
from agent.insights.dump import Dump, Task

MAX_ARGUMENTS_BYTES: Final = 128 << 10  # what execve allows for one argument
MAX_ENVIRONMENT_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64  # of the tree as it is shown; what lies deeper hangs on the last level
STATES: Final = {1: "alive", 2: "dead", 3: "stopped", 6: "zombie"}  # compel, COMPEL_TASK_…


@dataclass(frozen=True, slots=True)
class Arguments:
    """What lies at the top of a process's stack.

    Attributes:
        command_line: None where the pages were not dumped.
        environment: (name, value), values as bytes.
        truncated: it was longer than what is looked at.
    """

    command_line: tuple[bytes, ...] | None
    environment: tuple[tuple[str, bytes], ...] = ()
    truncated: bool = False


def report(dump: Dump, bounds: Bounds, *, with_values: bool = False) -> dict[str, Any]:
    """The processes as a list and as a tree; values of variables only ``with_values``."""
    described = (described_task(dump, task, with_values=with_values) for task in dump.tasks())
    kept = bounds.keep(described)
    shown = {row["pid"]: row for row in kept}
    nodes = [node for node in dump.nodes if node.pid in shown]
    return {
        "processes": kept,
        "tree": tree(nodes, {p: str(r["command"]) for p, r in shown.items()}),
    }


def described_task(dump: Dump, task: Task, *, with_values: bool) -> Row:
    """One process, in words and numbers."""
    found = arguments(dump, task)
    where = dump.filesystem(task)
    row: Row = {
        "pid": task.pid,
        "ppid": task.node.ppid,
        "pgid": task.node.pgid,
        "sid": task.node.sid,
        "command": task.core.command,
        "command_line": command_line(found),
        "executable": clipped(dump.path(task.space.exe_file_id)) if task.space else None,
        "state": STATES.get(task.core.task_state or 0, "unknown"),
        "threads": list(task.node.threads[:MAX_TEXT]),
        "working_directory": clipped(dump.path(where.cwd_id)) if where else None,
        "root": clipped(dump.path(where.root_id)) if where else None,
        "credentials": _credentials(task.core.credentials),
        "environment": _environment(found, with_values=with_values),
    }
    if found.truncated:
        row["truncated"] = True
    return row


def arguments(dump: Dump, task: Task) -> Arguments:
    """Command line and environment as they are in a process's memory.

    A program that writes its title over its arguments is shown with that title, as ``ps`` shows it.

    Source: linux, fs/proc/base.c (``get_mm_cmdline``).
    """
    space = task.space
    if space is None:
        return Arguments(None)
    memory = dump.memory(task)
    if memory is None:
        return Arguments(None)
    arg_end = min(space.arg_end, space.arg_start + MAX_ARGUMENTS_BYTES)
    env_end = min(space.env_end, space.env_start + MAX_ENVIRONMENT_BYTES)
    cut = (arg_end, env_end) != (space.arg_end, space.env_end)
    with memory:
        given = memory.read(space.arg_start, arg_end)
        surroundings = memory.read(space.env_start, env_end) or b""
    if given is None:
        return Arguments(None, truncated=cut)
    if given and given[-1:] != b"\0" and not cut:  # a title that goes on where the variables were
        title = given + surroundings if space.env_start == space.arg_end else given
        return Arguments((title.partition(b"\0")[0],), _variables(surroundings))
    return Arguments(_split(given), _variables(surroundings), cut)


def command_line(found: Arguments) -> list[str] | None:
    """The arguments as text."""
    if found.command_line is None:
        return None
    return [clipped(one.decode("utf-8", "backslashreplace")) for one in found.command_line]


def tree(nodes: Iterable[ProcessNode], commands: Mapping[int, str]) -> list[Row]:
    """The processes nested under their parents; whoever has no parent here is a root."""
    rows: dict[int, Row] = {}
    depths: dict[int, int] = {}
    roots: list[Row] = []
    for node in nodes:  # parents come first; a loop of parents can't arise
        row: Row = {"pid": node.pid, "command": commands[node.pid], "children": []}
        parent = rows.get(node.ppid)
        depth = depths.get(node.ppid, 0) + 1 if parent is not None else 0
        if parent is None:
            roots.append(row)
        else:
            parent["children"].append(row)
        # below the last level all are brothers, so that no reader runs out of stack
        rows[node.pid] = row if depth < MAX_DEPTH or parent is None else parent
        depths[node.pid] = min(depth, MAX_DEPTH)
    return roots


def _split(raw: bytes) -> tuple[bytes, ...]:
    parts = raw.split(b"\0")
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def _variables(raw: bytes) -> tuple[tuple[str, bytes], ...]:
    return tuple(_pairs(raw))


def _pairs(raw: bytes) -> Iterator[tuple[str, bytes]]:
    for entry in raw.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals and len(name) < MAX_TEXT and name.isascii():
            text = name.decode()
            if text.isprintable() and " " not in text:  # leftovers of a title are no names
                yield text, value


def _environment(found: Arguments, *, with_values: bool) -> list[Row]:
    if not with_values:
        return [{"name": name} for name, _ in found.environment]
    return [
        {"name": name, "value": clipped(value.decode("utf-8", "backslashreplace"))}
        for name, value in found.environment
    ]


def _credentials(known: Credentials | None) -> Row | None:
    if known is None:
        return None
    return {
        "uid": known.uid,
        "gid": known.gid,
        "euid": known.euid,
        "egid": known.egid,
        "groups": list(known.groups[:MAX_TEXT]),
        "capabilities_effective": f"{known.effective:#x}",
        "capabilities_bounding": f"{known.bounding:#x}",
        "no_new_privileges": known.no_new_privileges,
    }
