"""A checkpoint in figures: nothing in it comes from a process's memory, so everybody may read it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.formats import layout, record
from agent.formats.criu_entries import FdType
from agent.insights import mappings, opening
from agent.insights.bounds import Bounds, Row
from agent.insights.dump import Dump

_MAX_JSON_BYTES: Final = 4 << 20
_SOCKETS: Final = frozenset({FdType.INETSK, FdType.UNIXSK, FdType.PACKETSK, FdType.NETLINKSK})


def report(dump: Dump, bounds: Bounds) -> dict[str, Any]:
    """Whose checkpoint it is, and how much of what it holds."""
    heads: list[Row] = []
    counts: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for task in dump.tasks():
        bounds.check()
        kinds = [descriptor.kind for descriptor in dump.descriptors(task)]
        mapped, dumped = mappings.sizes(dump, task)
        memory.update({"mapped_bytes": mapped, "dumped_bytes": dumped})
        counts.update(processes=1, threads=len(task.node.threads), open_files=len(kinds))
        counts.update(sockets=sum(kind in _SOCKETS for kind in kinds))
        counts.update(mappings=len(task.space.mappings) if task.space else 0)
        heads.append({"pid": task.pid, "ppid": task.node.ppid, "command": task.core.command})
    memory["shared_dumped_bytes"] = mappings.shared_bytes(dump)
    return {
        "container": container(dump.parts),
        "sizes": sizes(dump.parts),
        "statistics": statistics(dump),
        "counts": dict(counts),
        "memory": dict(memory),
        "processes": bounds.keep(heads),
    }


def container(parts: Path) -> Row:
    """Whose checkpoint it is, by the record and by what runtimes write."""
    config = _json(parts / layout.CONFIG_DUMP)
    found: Row = {
        "id": _text(config, "id"),
        "name": _text(config, "name"),
        "image": _text(config, "rootfsImageName"),
        "runtime": _text(config, "runtime"),
        "created_at": _text(config, "createdTime"),
        "checkpointed_at": _text(config, "checkpointedTime"),
    }
    try:
        kept = record.read(parts)
    except (FileNotFoundError, ValueError):
        return found
    return found | {
        "namespace": kept.namespace,
        "pod_name": kept.pod_name,
        "container_name": kept.container_name,
        "engine": kept.engine,
        "container_runtime": kept.runtime,
        "oci_runtime": kept.oci_runtime,
        "criu_options": kept.criu_options.splitlines(),
        "pause_ms": kept.pause_ms,
        "left_running": kept.left_running,
    }


def sizes(parts: Path) -> Row:
    """Bytes on disk, by what they are."""
    images = parts / layout.CHECKPOINT_DIR
    image_files = [file for file in images.rglob("*") if file.is_file()]
    pages = [file for file in image_files if file.name.startswith("pages-")]
    volumes = [*parts.glob(f"{layout.VOLUMES_DIR}/*.tar"), *parts.glob(layout.SHM_TAR)]
    return {
        "checkpoint_bytes": _sum(image_files),
        "memory_pages_bytes": _sum(pages),
        "rootfs_diff_bytes": _sum(list(parts.glob(layout.ROOTFS_DIFF))),
        "volumes_bytes": _sum(volumes),
    }


def statistics(dump: Dump) -> Row | None:
    """CRIU's own figures, in its own words."""
    found = dump.statistics()
    if found is None:
        return None
    return {
        "freezing_time_us": found.freezing_time_us,
        "frozen_time_us": found.frozen_time_us,
        "memdump_time_us": found.memdump_time_us,
        "memwrite_time_us": found.memwrite_time_us,
        "pages_scanned": found.pages_scanned,
        "pages_written": found.pages_written,
    }


def spec(parts: Path) -> dict[str, Any]:
    """The container's OCI configuration; empty if it can't be read."""
    return _json(parts / layout.SPEC_DUMP)


def _json(file: Path) -> dict[str, Any]:
    try:
        with os.fdopen(opening.descriptor(file), "rb") as opened:
            found = msgspec.json.decode(opened.read(_MAX_JSON_BYTES))
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(found: dict[str, Any], key: str) -> str | None:
    value = found.get(key)
    return value if isinstance(value, str) else None


def _sum(files: list[Path]) -> int:
    return sum(file.lstat().st_size for file in files)
