"""Cgroups of an instance: made on every hierarchy the machine has, entered by its processes, removed with them.

Membership is what makes clean-up certain: whoever was started lands here before it can start anyone else, so even
processes whose starter was killed are found. Version 1 and 2 alike.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy. ``options`` are the mount's own ("cpu,cpuacct", "none,name=systemd")."""

    mount: Path
    options: str
    version: int


def hierarchies() -> tuple[Hierarchy, ...]:
    """The hierarchies of this machine to use, see ``parse``."""
    return parse(Path("/proc/self/mountinfo").read_text())


def parse(mountinfo: str) -> tuple[Hierarchy, ...]:
    """All hierarchies of version 1 where they hold the controllers, else the one of version 2.

    Source: proc(5), /proc/<pid>/mountinfo; cgroups(7).
    """
    first: list[Hierarchy] = []
    second: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, super_options = right.split(" ", 2)
        mount = Path(left.split()[4])
        if kind == "cgroup2":
            second.append(Hierarchy(mount, "", 2))
        elif kind == "cgroup":
            first.append(Hierarchy(mount, _mount_options(super_options), 1))
    return tuple(first) if any("memory" in h.options for h in first) else tuple(second[:1])


def _mount_options(super_options: str) -> str:
    """What ``mount -o`` needs to show the same hierarchy again."""
    ours = [w for w in super_options.split(",") if w not in {"rw", "ro", "xattr", "clone_children"}]
    kept = [word for word in ours if not word.startswith("release_agent=")]
    named = any(word.startswith("name=") for word in kept)
    return ",".join(["none", *kept] if named else kept)


def memory_folder(path: str) -> Path:
    """The folder that accounts the memory of cgroup ``path``."""
    found = hierarchies()
    return next(h.mount for h in found if h.version == 2 or "memory" in h.options.split(",")) / path


def make(path: str) -> list[Path]:
    """Make cgroup ``path`` on every hierarchy and return its folders, ready to be entered."""
    made = []
    for hierarchy in hierarchies():
        folder = hierarchy.mount
        for part in Path(path).parts:
            if hierarchy.version == 2:
                _delegate(folder)
            folder = folder / part
            folder.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.options.split(","):
                _inherit_cpuset(folder)
        made.append(folder)
    return made


def _inherit_cpuset(folder: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())


def _delegate(folder: Path) -> None:
    """Hand every controller on to the children of ``folder`` (version 2)."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # some can't be handed on while processes are inside
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def entering(folders: list[Path], argv: list[str]) -> list[str]:
    """``argv`` so that it first enters the cgroups ``folders``, without another process in between."""
    script = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 70; shift; done; shift; exec "$@"'
    return ["/bin/sh", "-c", script, "enter", *map(str, folders), "--", *argv]


def folders_of(path: str) -> list[Path]:
    """The folders of cgroup ``path`` that are there."""
    found = [hierarchy.mount / path for hierarchy in hierarchies()]
    return [folder for folder in found if folder.is_dir()]


def _below(top: Path) -> list[Path]:
    """``top`` and the folders below it, each after the one it is in; some may go while they are looked for."""
    return [Path(folder) for folder, _, _ in os.walk(top)]


def processes(path: str) -> set[int]:
    """Every process in cgroup ``path`` or below it, on any hierarchy."""
    pids: set[int] = set()
    for top in folders_of(path):
        for folder in _below(top):
            with contextlib.suppress(OSError):
                listing = (folder / "cgroup.procs").read_text()
                pids.update(int(word) for word in listing.split() if word != "0")
    return pids


def kill(path: str, *, timeout_s: float = 20.0) -> None:
    """Kill every process in cgroup ``path``, frozen ones too, and wait until they are gone.

    Raises:
        TimeoutError: some would not die.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        _thaw(path)
        pids = processes(path) - {os.getpid()}
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(pids)} of {path} do not end")
        time.sleep(0.05)


def _thaw(path: str) -> None:
    for top in folders_of(path):
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            for folder in _below(top):
                with contextlib.suppress(OSError):  # gone meanwhile, or without such a switch
                    if (folder / name).exists():
                        (folder / name).write_text(word)


def remove(path: str, *, timeout_s: float = 10.0) -> None:
    """Remove cgroup ``path`` with all below it; processes must be gone.

    Raises:
        TimeoutError: the kernel still says busy.
    """
    deadline = time.monotonic() + timeout_s
    while tops := folders_of(path):
        for top in tops:
            for folder in reversed(_below(top)):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroup {path} can't be removed")
        time.sleep(0.02)


def describe_for_node() -> str:
    """The hierarchies as the node's init reads them: one ``folder options`` or ``- v2`` per line."""
    lines = []
    for hierarchy in hierarchies():
        if hierarchy.version == 2:
            lines.append("- v2")
        else:
            lines.append(f"{hierarchy.mount.name} {hierarchy.options}")
    return "\n".join(lines)


def free_space_bytes(folder: Path) -> int:
    """Room left where ``folder`` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
